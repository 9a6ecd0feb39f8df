"""Reports as one self-contained HTML page each: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from markupsafe import Markup
from numpy.typing import ArrayLike

from toolkit.data.patients import CLASSES
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.metrics import Metrics, evaluate
from toolkit.evaluation.pages.drawing import png, svg
from toolkit.evaluation.pages.page import interval, number, render
from toolkit.evaluation.pages.pictures import draw_auc, draw_benefit, draw_loss, draw_reliability, draw_roc
from toolkit.evaluation.stability import Epoch, best_epoch, stability

_NAMES = {
    "auc": "AUC",
    "auc_delong": "AUC, DeLong",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity (HGG)",
    "specificity": "Specificity (LGG)",
    "accuracy": "Accuracy",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "calibration_intercept": "Calibration intercept (0)",
    "calibration_slope": "Calibration slope (1)",
}
_FLATTERED = (
    "The best epoch, and any fitted calibration and threshold, rest on these same validation patients. "
    "The numbers therefore flatter the network a little; patients it has never met decide."
)


class ReportedEpoch(Epoch, Protocol):
    """What the report shows of one epoch."""

    @property
    def lr(self) -> float:
        """Learning rate of the backbone."""

    @property
    def seconds(self) -> float:
        """Time that the epoch took."""


@dataclass(frozen=True)
class TrainingRecord:
    """What a training report is made of.

    Attributes:
        name: of the run.
        strategy: of the settings.
        history: the finished epochs, in order; empty for the pooled answers of a cross-validation.
        grade: (N,) integers of the validation patients, 0 LGG, 1 HGG.
        logit: (N,) of the best epoch, HGG minus LGG.
        calibration: as fitted on these.
        settings: all of them, as TOML.
        details: name -> value, shown as a table: labels, sites, versions, device.
        notes: sentences for the top of the page.
        synthetic: whether phantoms are among the patients.
    """

    name: str
    strategy: str
    history: Sequence[ReportedEpoch]
    grade: ArrayLike
    logit: ArrayLike
    calibration: Calibration
    settings: str
    details: Mapping[str, str]
    notes: Sequence[str]
    synthetic: bool = False


def training_report(record: TrainingRecord) -> str:
    """The report of one training.

    Raises:
        GradeError: no validation patients, or logits that are not finite.
    """
    calibration, history = record.calibration, record.history
    probability = calibration.probability(record.logit)
    metrics = evaluate(record.grade, probability, calibration.threshold)
    pictures = _cohort_pictures(metrics, record.grade, probability)
    if history:
        pictures = _curve_pictures(history) + pictures
    return render(
        "report.html",
        names=_NAMES,
        classes=CLASSES,
        kind="Training report",
        name=record.name,
        footing=f"training, strategy {record.strategy}",
        synthetic=record.synthetic,
        subtitle=f"strategy {record.strategy}, {f'{len(history)} epochs' if history else 'cross-validation'}",
        summary=_summary("Validation AUC", metrics, f", {calibration.decided}{_limits(calibration)}"),
        notes=[*record.notes, _FLATTERED, *calibration.notes, *metrics.notes],
        criteria=stability(history) if history else (),
        pictures=pictures,
        metrics=metrics,
        history=history,
        best=best_epoch(history),
        details={"Calibration": _describe(calibration), **record.details},
        settings=record.settings,
    )


@dataclass(frozen=True)
class WrongCase:
    """A patient who was graded otherwise than the reference standard says.

    Attributes:
        patient: id.
        known: grade of the reference standard.
        decided: the other one.
        probability: of HGG, 0 to 1.
        verdict: of the answer.
    """

    patient: str
    known: str
    decided: str
    probability: float
    verdict: str


@dataclass(frozen=True)
class EvaluationRecord:
    """What an evaluation report is made of.

    Attributes:
        name: of the cohort.
        metrics: from `evaluate` of the same patients.
        grade: (N,) integers, the reference standard, 0 LGG, 1 HGG.
        probability: (N,) of HGG, 0 to 1.
        verdicts: verdict -> patients, and how many of them were graded wrongly.
        wrong: whom the model graded wrongly.
        details: name -> value, shown as a table: model, runtime, refused patients.
        synthetic: whether the model was trained on phantoms.
    """

    name: str
    metrics: Metrics
    grade: ArrayLike
    probability: ArrayLike
    verdicts: Mapping[str, tuple[int, int]]
    wrong: Sequence[WrongCase]
    details: Mapping[str, str]
    synthetic: bool = False


def evaluation_report(record: EvaluationRecord) -> str:
    """The report of a model on a cohort with known grades.

    Raises:
        GradeError: as `evaluate`.
    """
    metrics = record.metrics
    return render(
        "evaluation.html",
        names=_NAMES,
        classes=CLASSES,
        kind="Evaluation report",
        name=record.name,
        footing=f"evaluation of model {record.details.get('Model', '')[:12]}",
        synthetic=record.synthetic,
        subtitle=f"{sum(metrics.cases.values())} patients",
        summary=_summary("AUC", metrics, ""),
        notes=metrics.notes,
        criteria=(),
        pictures=_cohort_pictures(metrics, record.grade, record.probability),
        metrics=metrics,
        history=(),
        best=None,
        verdicts=record.verdicts,
        wrong=record.wrong,
        details=record.details,
        settings=None,
    )


def roc_picture(grade: ArrayLike, probability: ArrayLike) -> bytes:
    """The ROC curve as a PNG file.

    Args:
        grade: (N,) integers, 0 LGG, 1 HGG.
        probability: (N,) of HGG, 0 to 1.

    Raises:
        GradeError: as `evaluate`.
    """
    return png(partial(draw_roc, grade=grade, probability=probability))


def reliability_picture(grade: ArrayLike, probability: ArrayLike) -> bytes:
    """The reliability diagram as a PNG file.

    Args:
        grade: (N,) integers, 0 LGG, 1 HGG.
        probability: (N,) of HGG, 0 to 1.

    Raises:
        GradeError: as `evaluate`.
    """
    return png(partial(draw_reliability, grade=grade, probability=probability))


def _summary(what: str, metrics: Metrics, rule: str) -> str:
    cases = ", ".join(f"{count} {name}" for name, count in metrics.cases.items())
    total = sum(metrics.cases.values())
    return (
        f"{what} {interval(metrics.auc)} in {total} patients ({cases}). "
        f"HGG is decided at a probability of {metrics.threshold:.3f} or more{rule}."
    )


def _limits(calibration: Calibration) -> str:
    if calibration.threshold_limits is None:
        return ""
    low, high = calibration.threshold_limits
    return f" (95 % interval of the threshold {low:.3f} to {high:.3f})"


def _describe(calibration: Calibration) -> str:
    if calibration.method == "none":
        return "none: the probability is the sigmoid of the logit difference"
    return f"{calibration.method}: sigmoid({calibration.a:.4g} × logit difference {calibration.b:+.4g})"


def _cohort_pictures(metrics: Metrics, grade: ArrayLike, probability: ArrayLike) -> list[tuple[str, Markup]]:
    """(heading, picture) of one cohort."""
    roc = svg(
        partial(draw_roc, grade=grade, probability=probability, threshold=metrics.threshold),
        f"ROC curve. AUC {interval(metrics.auc)}; at the threshold, sensitivity {interval(metrics.sensitivity)} and "
        f"specificity {interval(metrics.specificity)}.",
    )
    reliability = svg(
        partial(draw_reliability, grade=grade, probability=probability),
        f"Reliability diagram with the count of patients in each bin. Brier score {interval(metrics.brier)}.",
    )
    benefit = svg(
        partial(draw_benefit, grade=grade, probability=probability),
        "Decision curve: net benefit of acting on the model, on everyone and on no one, per threshold probability.",
    )
    return [("ROC curve", roc), ("Reliability", reliability), ("Decision curve", benefit)]


def _curve_pictures(history: Sequence[ReportedEpoch]) -> list[tuple[str, Markup]]:
    """(heading, picture) of the training."""
    first, last = history[0], history[-1]
    best = best_epoch(history)
    where = f"Validation at the best epoch, {best.epoch}: {number(best.val_auc)}." if best else ""
    loss = svg(
        partial(draw_loss, history=history),
        f"Loss per epoch. Training loss from {number(first.train_loss)} to {number(last.train_loss)}, "
        f"validation loss from {number(first.val_loss)} to {number(last.val_loss)}.",
    )
    area = svg(
        partial(draw_auc, history=history),
        f"AUC per epoch for training and validation. {where}",
    )
    return [("Loss", loss), ("AUC", area)]
