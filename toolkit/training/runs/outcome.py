"""What a training leaves behind once its best network is known: logits, calibration, stability, report."""

from __future__ import annotations

import json
from collections.abc import Sequence

from toolkit.config import CalibrationSettings, dump_settings
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.calibration_fit import fit_calibration
from toolkit.evaluation.metrics import Metrics, evaluate
from toolkit.evaluation.pages.page import interval
from toolkit.evaluation.pages.report import TrainingRecord, training_report
from toolkit.evaluation.sites import compare_sites, site_only
from toolkit.evaluation.stability import SPIKE_FACTOR, best_epoch, loss_spikes, stability
from toolkit.training.runs.folder import fold_runs
from toolkit.training.runs.run import Run, ValidationTable

_POOLED = (
    "Each patient was graded by networks that were not trained on this patient; the answers of all folds are pooled."
)


def write_outcome(run: Run, table: ValidationTable) -> None:
    """Write `validation.csv`, `stability.json`, `calibration.json` and `report.html`.

    Args:
        run: with its history written.
        table: the best network's answers.

    Raises:
        RunError: a file cannot be written.
    """
    run.write_validation(table)
    criteria = [criterion.model_dump() for criterion in stability(run.history())]
    run.write("stability.json", json.dumps(criteria, indent=2, allow_nan=False) + "\n")
    recalibrate(run, run.settings.calibration)


def recalibrate(run: Run, settings: CalibrationSettings) -> Calibration:
    """Refit calibration and threshold on the logits of `validation.csv`; write `calibration.json`, `report.html`.

    In a run of folds `folds.json`, too.

    Args:
        run: a training that ended.
        settings: method and rule; `settings.toml` keeps what the training asked for.

    Raises:
        RunError: the training has not ended, or a file is broken.
    """
    table = run.validation()
    calibration = fit_calibration(table.logit, table.grades, settings)
    page = _page(run, table, calibration)
    run.write("calibration.json", calibration.model_dump_json(indent=2) + "\n")
    if folds := fold_runs(run):
        _write_folds(run, folds, table, calibration)
    run.write("report.html", page)  # the last file: a run that has it has ended
    return calibration


def rewrite_report(run: Run) -> None:
    """Rewrite `report.html` with the calibration that is there.

    Args:
        run: a training that ended.

    Raises:
        RunError: the training has not ended, or a file is broken.
    """
    run.write("report.html", _page(run, run.validation(), run.calibration()))


def spike_sentence(losses: Sequence[float]) -> str:
    """How often the loss of an optimiser step leapt up."""
    share = loss_spikes(losses)
    if share is None:
        return f"Loss spikes are not defined for {len(losses)} optimiser steps."
    return f"The loss was above {SPIKE_FACTOR:g} times its running median in {share:.2%} of the steps that have one."


def _page(run: Run, table: ValidationTable, calibration: Calibration) -> str:
    training, validation = run.training_patients(), run.validation_patients()
    everyone = training.joined(validation)
    folds = fold_runs(run)
    sites = compare_sites(table.grades, table.logit, validation.sites or (None,) * len(validation))
    sites = sites._replace(alone=site_only(everyone.grades, everyone.sites))
    record = TrainingRecord(
        name=run.folder.name,
        strategy=run.settings.strategy,
        history=[] if folds else run.history(),
        grade=table.grades,
        logit=table.logit,
        calibration=calibration,
        settings=dump_settings(run.settings),
        details={
            "Labels": validation.labels,
            **({} if folds else {"Loss spikes": spike_sentence(run.step_losses())}),
            **{fold.folder.name: _fold_sentence(fold) for fold in folds},
            **sites.details,
            **run.environment(),
        },
        synthetic=run.synthetic,
        notes=[*([_POOLED] if folds else []), *([sites.alone.warning] if sites.alone and sites.alone.warning else [])],
    )
    return training_report(record)


def fold_metrics(fold: Run) -> Metrics:
    """Of a fold's network on its validation patients, with its own calibration and threshold."""
    table, calibration = fold.validation(), fold.calibration()
    return evaluate(table.grades, calibration.probability(table.logit), calibration.threshold)


def _write_folds(run: Run, folds: Sequence[Run], table: ValidationTable, calibration: Calibration) -> None:
    """`folds.json`: metrics of the pooled answers, and of each fold."""
    pooled = evaluate(table.grades, calibration.probability(table.logit), calibration.threshold)
    each = [
        {
            "name": fold.folder.name,
            "epochs": len(history := fold.history()),
            "best_epoch": best.epoch if (best := best_epoch(history)) else None,
            "metrics": fold_metrics(fold).model_dump(),
        }
        for fold in folds
    ]
    content = {"pooled": pooled.model_dump(), "folds": each}
    run.write("folds.json", json.dumps(content, indent=2, allow_nan=False) + "\n")


def _fold_sentence(fold: Run) -> str:
    found, history = fold_metrics(fold), fold.history()
    best = best_epoch(history)
    return (
        f"AUC {interval(found.auc)}, sensitivity {interval(found.sensitivity)}, specificity"
        f" {interval(found.specificity)} in {sum(found.cases.values())} patients; best epoch"
        f" {best.epoch if best else 'none'} of {len(history)}"
    )
