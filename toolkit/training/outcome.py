"""What a training leaves behind once its best network is known: logits, calibration, stability, report."""

from __future__ import annotations

import json

from toolkit.config import CalibrationSettings, dump_settings
from toolkit.evaluation.calibration import Calibration, fit_calibration
from toolkit.evaluation.report import TrainingRecord, training_report
from toolkit.evaluation.sites import compare_sites, site_only
from toolkit.evaluation.stability import stability
from toolkit.training.run import Run, ValidationTable


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
    """Fit calibration and threshold anew on the logits of `validation.csv`; write `calibration.json`, `report.html`.

    Args:
        run: a training that ended.
        settings: method and rule; `settings.toml` keeps what the training asked for.

    Raises:
        RunError: the training has not ended, or a file is broken.
    """
    table = run.validation()
    calibration = fit_calibration(table.logit, table.grades, settings)
    training, validation = run.training_patients(), run.validation_patients()
    everyone = training.joined(validation)
    sites = compare_sites(table.grades, table.logit, validation.sites or (None,) * len(validation))
    sites = sites._replace(alone=site_only(everyone.grades, everyone.sites))
    record = TrainingRecord(
        name=run.folder.name,
        strategy=run.settings.strategy,
        history=run.history(),
        grade=table.grades,
        logit=table.logit,
        calibration=calibration,
        settings=dump_settings(run.settings),
        details={"Labels": validation.labels, **sites.details, **run.environment()},
        notes=[sites.alone.warning] if sites.alone and sites.alone.warning else [],
    )
    page = training_report(record)
    run.write("calibration.json", calibration.model_dump_json(indent=2) + "\n")
    run.write("report.html", page)
    return calibration
