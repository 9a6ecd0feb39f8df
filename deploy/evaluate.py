"""A model against patients whose grade is known, and against what else could explain its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.model.folder import Model
from deploy.predict.pipeline import Plan, PredictOptions, predict
from deploy.predict.verdict import SINGLE, VERDICTS
from deploy.results.record import Record
from toolkit.data.control import mask_tumour
from toolkit.data.patients import CLASSES, Cohort
from toolkit.errors import CohortError
from toolkit.evaluation.metrics import Interval, Metrics, evaluate
from toolkit.evaluation.pages.page import interval
from toolkit.evaluation.pages.report import (
    EvaluationRecord,
    WrongCase,
    evaluation_report,
    reliability_picture,
    roc_picture,
)
from toolkit.evaluation.sites import Sites, compare_sites

CONTROLS = {"mask-tumour": mask_tumour}
EVALUATION = "evaluation.html"


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a cohort.

    Attributes:
        cohort: who was to be graded.
        graded: who counts, with the answers, and who was refused and counts in no metric.
        metrics: over the graded patients, each with its interval.
        sites: of the graded patients.
    """

    cohort: Cohort
    graded: Graded
    metrics: Metrics
    sites: Sites


@dataclass(frozen=True)
class Control:
    """The same patients twice: as they are, and changed as a control demands.

    Attributes:
        name: of the control.
        patients: how many were graded both times.
        left_out: patient -> why the control has no answer.
        plain: AUC with its interval as they are.
        changed: as they were changed.
    """

    name: str
    patients: int
    left_out: dict[str, str]
    plain: Interval
    changed: Interval

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON knows it."""
        aucs = {"auc_as_it_is": self.plain._asdict(), "auc": self.changed._asdict()}
        return {"name": self.name, "patients": self.patients, "left_out": self.left_out, **aucs}

    @property
    def sentence(self) -> str:
        """For a page."""
        plain, changed = interval(self.plain), interval(self.changed)
        return f"{self.patients} patients: AUC {changed}, as they are {plain}; towards 0.5 if the tumour is what counts"


def evaluate_model(
    model: Model,
    cohort: Cohort,
    options: PredictOptions,
    on_plan: Callable[[Plan], None],
    on_record: Callable[[Record], None],
) -> Evaluation:
    """Grade a cohort and compare with its known grades.

    Args:
        model: opened.
        cohort: patients and grades, not those that it was trained on.
        options: as for `predict`; the results folder also takes `metrics.json`, `sites.json`, `roc.png`,
            `reliability.png` and `evaluation.html`.
        on_plan: as for `predict`.
        on_record: as for `predict`.

    Raises:
        CohortError: every patient was refused.
        GradeError: as `predict`.
    """
    graded = _grade(model, cohort, options, on_plan, on_record)
    metrics = evaluate(graded.grades, graded.probabilities, graded.threshold)
    sites = compare_sites(graded.grades, graded.probabilities, graded.sites)
    found = Evaluation(cohort, graded, metrics, sites)
    _write(options.results, model, found)
    return found


def evaluate_control(
    name: str, model: Model, options: PredictOptions, plain: Evaluation, on_record: Callable[[Record], None]
) -> Control:
    """Grade images that were changed as a control demands, and compare over the patients who were graded both times.

    Args:
        name: one of `CONTROLS`.
        model: opened.
        options: as for `evaluate_model`; the records go to a folder of the control's name below, what came of it to
            `control.json` and the page of the evaluation.
        plain: what came of the images as they are.
        on_record: as for `predict`.

    Raises:
        CohortError: every patient was refused, for example because there are no tumour masks.
        GradeError: as `predict`.
    """
    changed = replace(options, results=options.results / name, edit=CONTROLS[name])
    graded = _grade(model, plain.cohort, changed, lambda _: None, on_record)
    before = {record.patient for record in plain.graded.records}
    both = before & {record.patient for record in graded.records}
    left_out = {record.patient: record.reason for record in graded.refused if record.patient in before}
    found = Control(name, len(both), left_out, plain.graded.auc_of(both), graded.auc_of(both))
    content = json.dumps(found.facts, indent=2, allow_nan=False) + "\n"
    (options.results / "control.json").write_text(content, encoding="utf-8")
    _write_page(options.results, model, plain, found)
    return found


class Graded(NamedTuple):
    """The patients that were graded with their records, and the records of those that were not."""

    grades: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    sites: tuple[str | None, ...]
    records: tuple[Record, ...]
    refused: tuple[Record, ...]

    @property
    def threshold(self) -> float:
        """Of all of them."""
        return self.records[0].threshold

    def auc_of(self, patients: set[str]) -> Interval:
        """AUC with its interval over some of the patients."""
        some = [record.patient in patients for record in self.records]
        return evaluate(self.grades[some], self.probabilities[some], self.threshold).auc


def _grade(
    model: Model,
    cohort: Cohort,
    options: PredictOptions,
    on_plan: Callable[[Plan], None],
    on_record: Callable[[Record], None],
) -> Graded:
    records: list[Record] = []

    def keep(record: Record) -> None:
        records.append(record)
        on_record(record)

    predict(cohort.patients, model, options, on_plan, keep)
    refused = tuple(record for record in records if record.grade is None)
    if len(refused) == len(records):
        raise CohortError(f"all {len(cohort)} patients were refused, {refused[0].patient} because {refused[0].reason}.")
    known: Sequence[str | None] = cohort.sites or (None,) * len(cohort)
    answered = [
        (grade, record.probability, site, record)
        for grade, record, site in zip(cohort.grades, records, known, strict=True)
        if record.probability is not None
    ]
    grades, probabilities, sites, graded = zip(*answered, strict=True)
    lacking = sorted({record.missing or "nothing" for record in graded})
    if len(lacking) > 1:
        raise CohortError(
            f"some of these patients lack {' and some '.join(lacking)}, which are graded by different thresholds;"
            " evaluate them separately."
        )
    return Graded(np.array(grades, np.int64), np.array(probabilities), sites, graded, refused)


def _write(folder: Path, model: Model, found: Evaluation) -> None:
    graded, metrics, sites = found.graded, found.metrics, found.sites
    facts: dict[str, Any] = {
        "site_only": sites.alone._asdict() if sites.alone else None,
        "auc_within_site": sites.within,
        "auc_without_site": sites.without,
    }
    (folder / "metrics.json").write_text(metrics.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "sites.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "roc.png").write_bytes(roc_picture(graded.grades, graded.probabilities))
    (folder / "reliability.png").write_bytes(reliability_picture(graded.grades, graded.probabilities))
    _write_page(folder, model, found)


def _write_page(folder: Path, model: Model, found: Evaluation, control: Control | None = None) -> None:
    """The page, with what came of a control where there was one."""
    graded = found.graded
    details = {
        "Model": model.fingerprint,
        "Patients": ", ".join(f"{found.metrics.cases[name]} {name}" for name in CLASSES),
        "Refused": ", ".join(record.patient for record in graded.refused) or "none",
        **found.sites.details,
        **({f"Control {control.name}": control.sentence} if control else {}),
    }
    page = EvaluationRecord(
        name=folder.absolute().name,
        metrics=found.metrics,
        grade=graded.grades,
        probability=graded.probabilities,
        verdicts=_verdicts(graded),
        wrong=_wrong(graded),
        details=details,
        synthetic=model.manifest.training.synthetic,
    )
    (folder / EVALUATION).write_text(evaluation_report(page), encoding="utf-8")


def _verdicts(graded: Graded) -> dict[str, tuple[int, int]]:
    """Verdict -> patients, and how many of them were graded wrongly."""
    found = {}
    for word in VERDICTS:
        hits = [
            record.grade == CLASSES[grade]
            for grade, record in zip(graded.grades, graded.records, strict=True)
            if record.verdict == word
        ]
        if hits:
            found[word] = len(hits), hits.count(False)
    return found


def _wrong(graded: Graded) -> list[WrongCase]:
    """Whom the model graded wrongly: single grades first, then by how sure the probability was."""
    cases = []
    for grade, record in zip(graded.grades, graded.records, strict=True):
        if record.grade == CLASSES[grade] or record.grade is None or record.probability is None:
            continue
        verdict = record.verdict or ""
        cases.append(WrongCase(record.patient, CLASSES[grade], record.grade, record.probability, verdict))
    return sorted(cases, key=lambda case: (case.verdict != SINGLE, -abs(case.probability - 0.5), case.patient))
