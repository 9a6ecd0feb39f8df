"""What a finished training looks like in the terminal. No torch: a page is written again on any machine."""

from __future__ import annotations

from typing import Any

from cli.console import figure, note, say, table
from cli.tables import show_metrics
from toolkit.data.layout import PHANTOMS
from toolkit.data.patients import CLASSES
from toolkit.evaluation.metrics import Metrics, evaluate
from toolkit.evaluation.stability import stability
from toolkit.training.runs.folder import fold_runs
from toolkit.training.runs.outcome import fold_metrics, spike_sentence
from toolkit.training.runs.run import Run


def facts(run: Run) -> dict[str, Any]:
    """What came out of a training, as JSON knows it."""
    calibration = run.calibration()
    folds = [fold.folder.name for fold in fold_runs(run)] if run.settings.data.folds else []
    criteria = [] if folds else [criterion.model_dump(mode="json") for criterion in stability(run.history())]
    return {
        "run": str(run.folder),
        "metrics": _metrics(run).model_dump(mode="json"),
        "calibration": calibration.model_dump(mode="json"),
        "stability": criteria,
        "epochs": len(run.history()),
        "folds": folds,
    }


def _metrics(run: Run) -> Metrics:
    outcome, calibration = run.validation(), run.calibration()
    return evaluate(outcome.grades, calibration.probability(outcome.logit), calibration.threshold)


def show_run(run: Run, as_json: bool = False) -> None:
    """What came out of a training: metrics, stability criteria, calibration, where the files are."""
    calibration = run.calibration()
    if as_json:
        for text in calibration.notes:
            note(text)
        return
    metrics = _metrics(run)
    counts = " and ".join(f"{calibration.cases[name]} {name}" for name in CLASSES)
    show_metrics(f"Validation ({counts}), threshold {calibration.threshold:.3f} {calibration.decided}", metrics)
    for text in calibration.notes:
        note(text)
    if run.settings.data.folds:
        rows = [_fold_row(fold) for fold in fold_runs(run)]
        table("Folds", ("", "patients", "AUC", "95 % interval", "epochs"), rows)
    else:
        _show_stability(run)
    if run.synthetic:
        note(PHANTOMS)
    say(f"run: {run.folder}   page: {run.folder / 'report.html'}")


def _fold_row(fold: Run) -> tuple[str, ...]:
    value, low, high = fold_metrics(fold).auc
    count, epochs = len(fold.validation_patients()), len(fold.history())
    return fold.folder.name, str(count), figure(value), f"{figure(low)} to {figure(high)}", str(epochs)


def _show_stability(run: Run) -> None:
    words = {True: "met", False: "not met", None: "undefined"}
    rows = [(words[criterion.met], criterion.sentence) for criterion in stability(run.history())]
    rows.append(("–", spike_sentence(run.step_losses())))
    table("Stability", ("", ""), rows)
