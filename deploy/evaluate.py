"""A model against patients whose grade is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deploy.model import Model
from deploy.predict import Plan, PredictOptions, predict
from deploy.results import Record
from toolkit.data.patients import CLASSES, Cohort
from toolkit.errors import CohortError
from toolkit.evaluation.metrics import Metrics, evaluate
from toolkit.evaluation.report import evaluation_report, reliability_picture, roc_picture


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a cohort.

    Attributes:
        metrics: over the graded patients, each with its interval.
        refused: records of those that were not graded; they count in no metric.
    """

    metrics: Metrics
    refused: tuple[Record, ...]


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
        options: as for `predict`; the results folder also takes `metrics.json`, `roc.png`, `reliability.png` and
            `report.html`.
        on_plan: as for `predict`.
        on_record: as for `predict`.

    Raises:
        CohortError: every patient was refused.
        GradeError: as `predict`.
    """
    records: list[Record] = []

    def keep(record: Record) -> None:
        records.append(record)
        on_record(record)

    predict(cohort.patients, model, options, on_plan, keep)
    answered = [
        (known, r.probability) for known, r in zip(cohort.grades, records, strict=True) if r.probability is not None
    ]
    refused = tuple(record for record in records if record.grade is None)
    if not answered:
        raise CohortError(f"all {len(cohort)} patients were refused, {refused[0].patient} because {refused[0].reason}.")
    grade = np.array([known for known, _ in answered], np.int64)
    probability = np.array([p for _, p in answered])
    metrics = evaluate(grade, probability, model.manifest.calibration.threshold)
    details = {
        "Model": model.fingerprint,
        "Patients": ", ".join(f"{metrics.cases[name]} {name}" for name in CLASSES),
        "Refused": ", ".join(record.patient for record in refused) or "none",
    }
    folder = options.results
    (folder / "metrics.json").write_text(metrics.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "roc.png").write_bytes(roc_picture(grade, probability))
    (folder / "reliability.png").write_bytes(reliability_picture(grade, probability))
    page = evaluation_report(folder.absolute().name, metrics, grade, probability, details)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return Evaluation(metrics, refused)
