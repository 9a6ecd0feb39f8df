from __future__ import annotations

import json
import re
from html import unescape

import numpy as np
import pytest

from toolkit.errors import GradeError
from toolkit.evaluation.comparison import Answers, compare_arms, pairs_of
from toolkit.evaluation.metrics import auc
from toolkit.evaluation.pages.study_page import study_report
from toolkit.evaluation.study import (
    BaselineRecord,
    RunRecord,
    Study,
    drw_sentence,
    headline,
    over_seeds,
    summarise_arm,
    summary,
)


def record(arm: str = "stable", seed: int = 0, **more: object) -> RunRecord:
    values: dict[str, object] = {
        "name": f"{arm}-s{seed}",
        "arm": arm,
        "seed": seed,
        "fold": None,
        "auc": 0.8,
        "accuracy": 0.75,
        "spread": 0.01,
        "trend": -0.9,
        "gap": 0.05,
        "peak": 0.03,
        "spikes": 0.001,
        "epochs": 20,
        "best_epoch": 12,
        "drw_epoch": None,
        "seconds": 100.0,
        "val_auc": (0.6, None, 0.8),
        "train_loss": (0.7, 0.5, 0.4),
    }
    return RunRecord.model_validate(values | more)


def answers(seed: int, shift: float, lgg: int = 15, hgg: int = 42) -> Answers:
    rng = np.random.default_rng(seed)
    grade = np.array([0] * lgg + [1] * hgg)
    logit = rng.normal(0, 1, lgg + hgg) + shift * grade
    return Answers(
        patients=tuple(f"p{i}" for i in range(lgg + hgg)), grade=tuple(grade.tolist()), logit=tuple(logit.tolist())
    )


def test_summary_by_hand() -> None:
    found = summary([1.0, None, 3.0])
    assert (found.mean, found.low, found.high, found.count) == (2.0, 1.0, 3.0, 2)
    assert found.sd == pytest.approx(2**0.5)  # (1 + 1) / (2 - 1)
    assert summary([4.0]).sd is None
    assert summary([None]).mean is None


def test_folds_of_a_seed_are_averaged_first() -> None:
    runs = [record(seed=s, fold=f, auc=a) for s, f, a in ((0, 1, 0.6), (0, 2, 0.8), (1, 1, 0.9), (1, 2, None))]
    found = over_seeds(runs, lambda run: run.auc)
    assert found.count == 2
    assert found.mean == pytest.approx(0.8)
    assert found.sd == pytest.approx(0.2 / 2**0.5)


def test_four_of_five_meet_a_criterion() -> None:
    runs = [record(seed=i, spread=s, trend=-0.7, gap=None) for i, s in enumerate((0.01, 0.012, 0.014, 0.016, 0.048))]
    steady, falling, gap, lucky, seeds = summarise_arm("stable", (), runs).verdicts
    assert (lucky.met, lucky.sentence[:12]) == (True, "In 5 of 5 ru")
    assert steady.met is True
    assert steady.sentence == (
        "In 4 of 5 runs the standard deviation of the validation AUC over the last 5 epochs is below the limit of "
        "0.02; mean 0.020, worst 0.048."
    )
    assert falling.met is False
    assert gap.met is None
    assert (seeds.met, seeds.limit) == (None, None)
    worse = [*runs[:3], record(seed=3, spread=0.03), runs[4]]
    assert summarise_arm("stable", (), worse).verdicts[0].met is False


def test_what_is_undefined_does_not_count_as_met() -> None:
    runs = [record(seed=0), record(seed=1, spread=None)]
    steady = summarise_arm("stable", (), runs).verdicts[0]
    assert steady.met is False
    assert "In 1 of 2 runs" in steady.sentence
    assert "undefined in 1" in steady.sentence


@pytest.mark.parametrize(
    "epochs, words",
    [((12, 17), "never began"), ((12, 25), "began in 1 of 2 runs only"), ((25, 30), None)],
)
def test_reweighting_that_never_began_is_said(epochs: tuple[int, int], words: str | None) -> None:
    runs = [record("legacy", seed, epochs=count, drw_epoch=25) for seed, count in enumerate(epochs)]
    sentence = drw_sentence(summarise_arm("legacy", (), runs), runs)
    assert (sentence is None) == (words is None)
    if words:
        assert sentence is not None
        assert words in sentence
        assert "epoch 25" in sentence
        assert "after epoch 12" in sentence


def test_pairs() -> None:
    assert pairs_of(["a", "b", "c"], {"a-x": "a"}) == [("a", "b"), ("a", "c"), ("b", "c"), ("a-x", "a")]


def test_difference_by_hand_and_its_interval() -> None:
    one, other = [answers(s, 2.0) for s in range(5)], [answers(s, 0.5) for s in range(5)]
    pair = compare_arms("one", "other", {"one": one, "other": other})
    assert pair is not None
    expected = np.mean([auc(a.grade, a.logit) - auc(b.grade, b.logit) for a, b in zip(one, other, strict=True)])  # type: ignore[operator]
    assert pair.difference == pytest.approx(expected)
    assert pair.splits == 5
    assert 0 < pair.low < pair.difference < pair.high
    # an independent bootstrap, patient by patient
    rng, found = np.random.default_rng(7), []
    for _ in range(400):
        total = 0.0
        for split in rng.integers(5, size=5):
            grade = np.array(one[split].grade)
            drawn = np.concatenate([rng.choice(np.flatnonzero(grade == c), (grade == c).sum()) for c in (0, 1)])
            areas = [auc(grade[drawn], np.array(arm[split].logit)[drawn]) for arm in (one, other)]
            total += (areas[0] or 0) - (areas[1] or 0)
        found.append(total / 5)
    assert (pair.low, pair.high) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])), abs=0.02)


def test_an_arm_against_itself_differs_by_nothing() -> None:
    arm = [answers(s, 1.0) for s in range(3)]
    pair = compare_arms("a", "b", {"a": arm, "b": arm})
    assert pair is not None
    assert (pair.difference, pair.low, pair.high) == (0, 0, 0)


def test_other_patients_are_no_pair() -> None:
    with pytest.raises(GradeError, match="validated on different patients"):
        compare_arms("a", "b", {"a": [answers(0, 1.0)], "b": [answers(0, 1.0, lgg=14, hgg=43)]})
    assert compare_arms("a", "b", {"a": [answers(0, 1.0, lgg=0)], "b": [answers(0, 1.0, lgg=0)]}) is None
    assert compare_arms("a", "b", {"a": [], "b": []}) is None


def baseline(value: float) -> BaselineRecord:
    return BaselineRecord(name="regression", looks_at="volumes", auc=summary([value, value]), accuracy=summary([0.7]))


def test_headline_says_who_wins() -> None:
    arms = [
        summarise_arm(name, (), [record(name, s, auc=a + s / 10) for s in (0, 1)])
        for name, a in (("x", 0.7), ("y", 0.8))
    ]
    assert headline(arms, [baseline(0.6)]).startswith("The highest mean AUC is that of y (AUC 0.850 ± 0.071); the best")
    assert headline(arms, [baseline(0.875)]).startswith("No strategy beats the best baseline, regression (AUC 0.875")
    assert headline(arms, []).endswith("no baseline has one.")
    assert headline([summarise_arm("x", (), [record(auc=None)])], []).startswith("No strategy has an AUC")


@pytest.fixture
def study() -> Study:
    runs = [record("stable", s, auc=0.8 + s / 100, spread=None if s else 0.0123) for s in range(3)]
    late = [
        record("legacy<b>", s, epochs=14 + s, drw_epoch=25, auc=0.7 + s / 50, spread=0.03 + s / 90) for s in range(3)
    ]
    arms = (summarise_arm("stable", (), runs), summarise_arm("legacy<b>", ("training.ema=0.99",), late))
    pair = compare_arms("a", "b", {"a": [answers(1, 2.0)], "b": [answers(1, 1.0)]})
    assert pair is not None
    return Study(
        headline=headline(arms, [baseline(0.9)]),
        notes=("a note",),
        arms=arms,
        baselines=(baseline(0.9),),
        pairs=(pair,),
        runs=(*runs, *late),
        failed={"stable-s9": "its loss was not finite"},
        details={"Cohort": "c"},
    )


def test_every_number_of_the_page_is_that_of_the_json(study: Study) -> None:
    page, content = study_report("study", study), json.loads(study.model_dump_json())
    assert_page_equals(page, content)


def assert_page_equals(page: str, content: dict) -> None:
    """Each marked number equals its place in the JSON to the digits shown, and no table has an unmarked number."""
    marked = re.findall(r'<span data-json="([^"]+)">([^<]+)</span>', page)
    assert len(marked) > 40
    for place, shown in marked:
        value = content
        for step in place.strip("/").split("/"):
            value = value[int(step)] if isinstance(value, list) else value[step]
        if value is None:
            assert shown == "undefined", place
        else:
            digits = len(shown.partition(".")[2])
            assert f"{value:.{digits}f}" == shown, place
    for cell in re.findall(r'<td class="number[^"]*">(.*?)</td>', page, re.DOTALL):
        rest = re.sub(r"<span data-json=.*?</span>", "", cell)
        assert not re.search(r"\d", rest), cell
    sentences = [content["headline"], *content["notes"], *content["failed"].values()]
    sentences += [verdict["sentence"] for arm in content["arms"] for verdict in arm["verdicts"]]
    for sentence in sentences:
        assert sentence in unescape(page)


def test_page_opens_with_the_headline_and_escapes_names(study: Study) -> None:
    page = study_report("study", study)
    assert page.index("No strategy beats") < page.index("a note") < page.index("Strategies and baselines")
    assert "legacy<b>" not in page.replace("legacy&lt;b&gt;", "")
    assert "<script" not in page
    assert "://" not in re.sub(r'xmlns[:\w]*="[^"]*"', "", page)
