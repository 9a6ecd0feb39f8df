from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from toolkit.config import CalibrationSettings, Settings, dump_settings
from toolkit.evaluation.calibration_fit import fit_calibration
from toolkit.evaluation.metrics import evaluate
from toolkit.evaluation.pages.drawing import svg
from toolkit.evaluation.pages.pictures import draw_auc, draw_reliability, draw_roc
from toolkit.evaluation.pages.report import (
    EvaluationRecord,
    TrainingRecord,
    WrongCase,
    evaluation_report,
    reliability_picture,
    roc_picture,
    training_report,
)

NASTY = '<script>alert(1)</script> & "co"'


class _Page(HTMLParser):
    """Tags with their attributes, the text, and tags that are closed out of order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open, self.crossed = [], "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "path", "use", "rect", "stop", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        elif tag not in ("path", "use", "rect", "stop"):
            self.crossed.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def history(make_epoch):
    return [
        make_epoch(epoch=i, train_loss=1 / i, train_auc=1 - 0.4 / i, val_auc=None if i == 1 else 0.9 - abs(i - 6) / 100)
        for i in range(1, 9)
    ]


@pytest.fixture(scope="module")
def record(cohort, history):
    return TrainingRecord(
        name=f"run {NASTY}",
        strategy="stable",
        history=history,
        grade=cohort.grade,
        logit=cohort.logit,
        calibration=fit_calibration(cohort.logit, cohort.grade, CalibrationSettings()),
        settings=dump_settings(Settings()),
        details={"device": NASTY},
        notes=[f"note {NASTY}"],
    )


@pytest.fixture(scope="module")
def text(record):
    return training_report(record)


def test_training_report_holds_what_it_promises(record, text, cohort):
    page = _Page(text)
    found = evaluate(cohort.grade, record.calibration.probability(cohort.logit), record.calibration.threshold)
    assert page.crossed == [] and page.open == []
    for words in (
        f"run {NASTY}",
        "strategy stable, 8 epochs",
        f"Validation AUC {found.auc.value:.3f} (95 % interval {found.auc.low:.3f} to {found.auc.high:.3f})",
        "57 patients (15 LGG, 42 HGG)",
        f"probability of {record.calibration.threshold:.3f} or more, by the rule youden",
        "✓ met",
        "below the limit of 0.02",
        "head_lr = 0.0002",
        "Research use only. Not a medical device.",
    ):
        assert words in page.text, words


def test_report_escapes_user_text_and_needs_no_network(text):
    page = _Page(text)
    assert "<script" not in text
    assert {"script", "link", "iframe", "img"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import", text)


def test_every_picture_says_what_it_shows(text):
    pictures = [attributes for tag, attributes in _Page(text).tags if tag == "svg"]
    labels = [attributes["aria-label"] for attributes in pictures]
    assert [label.split(".")[0].split(" ")[0] for label in labels] == ["Loss", "AUC", "ROC", "Reliability", "Decision"]
    assert "Validation at the best epoch, 6: 0.900." in labels[1]
    assert all(attributes["role"] == "img" for attributes in pictures)


def test_pictures_take_the_colour_of_the_page(text):
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "#1d2530" not in drawn
    assert "currentColor" in drawn


def test_history_table_marks_the_best_epoch(text):
    (best,) = re.findall(r'<tr class="best">\s*<td class="number">(\d+)</td>', text)
    assert best == "6"
    assert text.count('<td class="number">undefined</td>') == 1  # validation AUC of epoch 1


def test_confusion_table_counts_all_patients(record, text, cohort):
    decided = record.calibration.probability(cohort.logit) >= record.calibration.threshold
    for grade, name, all_of_it in ((0, "LGG", 15), (1, "HGG", 42)):
        hgg = int(decided[cohort.grade == grade].sum())
        cells = re.search(rf'<th scope="row">{name}</th>(.*?)</tr>', text, flags=re.DOTALL).group(1)
        assert [int(n) for n in re.findall(r">(\d+)<", cells)] == [all_of_it - hgg, hgg, all_of_it]


def test_same_record_gives_the_same_page(record, text):
    assert training_report(record) == text


def test_report_of_a_training_that_could_measure_nothing(make_epoch):
    logit = np.array([0.5, 1.0, 2.0])
    record = TrainingRecord(
        name="tiny",
        strategy="stable",
        history=[make_epoch(epoch=1, train_loss=1.0, train_auc=None, val_auc=None)],
        grade=np.ones(3, dtype=int),
        logit=logit,
        calibration=fit_calibration(logit, np.ones(3, dtype=int), CalibrationSettings()),
        settings="",
        details={},
        notes=[],
    )
    text = _Page(training_report(record)).text
    for words in ("Validation AUC undefined in 3 patients (0 LGG, 3 HGG)", "not defined", "Calibration needs at least"):
        assert words in text


def test_report_without_epochs_has_no_curves(record):
    text = training_report(TrainingRecord(**{**record.__dict__, "history": []}))
    assert [attributes["aria-label"][:3] for tag, attributes in _Page(text).tags if tag == "svg"] == [
        "ROC",
        "Rel",
        "Dec",
    ]


def test_evaluation_report(cohort):
    metrics = evaluate(cohort.grade, cohort.probability, 0.5)
    wrong = [
        WrongCase(f"a {NASTY}", "LGG", "HGG", 0.996, "single grade"),
        WrongCase("b", "HGG", "LGG", 0.25, "uncertain"),
    ]
    record = EvaluationRecord(
        name=f"hospital {NASTY}",
        metrics=metrics,
        grade=cohort.grade,
        probability=cohort.probability,
        verdicts={"uncertain": (7, 1), "single grade": (24, 3)},
        wrong=wrong,
        details={"Model": NASTY},
        synthetic=True,
    )
    text = evaluation_report(record)
    page = _Page(text)
    assert page.crossed == [] and page.open == []
    assert f"hospital {NASTY}" in page.text
    assert f"{metrics.brier.low:.3f} to {metrics.brier.high:.3f}" in page.text
    for absent in ("Stability", "History", "Settings"):
        assert absent not in page.text
    for present in (f"a {NASTY}", "0.996", "0.250", "uncertain", "never for patients"):
        assert present in page.text
    assert [attributes["data-patient"] for tag, attributes in page.tags if "data-patient" in attributes] == [
        f"a {NASTY}",
        "b",
    ]
    assert "never for patients" not in evaluation_report(replace(record, synthetic=False))
    assert "Nobody." in evaluation_report(replace(record, wrong=()))


@pytest.mark.parametrize("picture", [roc_picture, reliability_picture])
def test_pictures_for_evaluation_are_png(picture, cohort):
    image = Image.open(io.BytesIO(picture(cohort.grade, cohort.probability)))
    assert (image.format, image.size) == ("PNG", (960, 720))
    assert len(image.convert("L").getcolors()) > 20  # something is drawn


def test_roc_picture_of_one_class_says_undefined():
    figure = Figure()
    draw_roc(figure, [1, 1], [0.2, 0.9])
    assert figure.axes[0].texts[0].get_text() == "undefined: patients of one grade only"


def test_roc_marks_the_threshold():
    figure = Figure()
    draw_roc(figure, [0, 0, 1, 1], [0.2, 0.6, 0.4, 0.9], threshold=0.5)
    point = figure.axes[0].lines[-1]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.5, 0.5)


def test_reliability_shows_the_count_of_each_bin():
    figure = Figure()
    draw_reliability(figure, [0, 0, 1, 1, 1], [0.1, 0.15, 0.5, 0.9, 0.95])
    assert [text.get_text() for text in figure.axes[1].texts] == ["2", "1", "2"]


def test_undefined_auc_leaves_a_gap(history):
    figure = Figure()
    draw_auc(figure, history)
    validation = figure.axes[0].lines[1].get_ydata()
    assert np.isnan(validation[0]) and not np.isnan(validation[1:]).any()


def test_pictures_leave_matplotlibs_settings_alone(history):
    before = dict(mpl.rcParams)
    svg(lambda figure: draw_auc(figure, history), 'a "label"')
    assert dict(mpl.rcParams) == before


def test_pictures_do_without_pyplot():
    code = (
        "import sys; from toolkit.evaluation.pages.report import roc_picture; roc_picture([0, 1], [0.2, 0.7]); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
