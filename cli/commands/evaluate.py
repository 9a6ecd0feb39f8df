"""`grade evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import Device, RuntimeName


def command(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    cohort: Annotated[Path, typer.Argument(help="Folder of patients with known grades.")],
    labels: Annotated[Path | None, typer.Option(help="Table of grades (patient, grade, site).")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("evaluation"),
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    leave_one_site_out: Annotated[
        bool, typer.Option("--leave-one-site-out", help="Also the AUC without each site.")
    ] = False,
    control: Annotated[
        Literal["mask-tumour"] | None,
        typer.Option(help="Also the AUC with the tumour (seg file) replaced by the brain's median."),
    ] = None,
) -> None:
    """Grade patients whose grade is known: metrics with intervals, sites, confusion table, pictures, a page."""
    from cli.console import bar, note
    from cli.screens.predict import say_plan
    from cli.tables import show_confusion, show_control, show_metrics, show_sites
    from deploy.evaluate import evaluate_control, evaluate_model
    from deploy.model import open_model
    from deploy.predict import PredictOptions
    from deploy.runtimes import Choice
    from toolkit.config import LabelTable, PredictSettings
    from toolkit.data.labels import read_cohort
    from toolkit.owned import check_shared

    known = read_cohort(cohort, LabelTable(file=labels) if labels else None)
    for sentence in known.notes:
        note(sentence)
    options = PredictOptions(out, Choice(runtime, device), PredictSettings())
    check_shared(out, ["records.jsonl"], ["audit.jsonl"], "results of grade")
    opened = open_model(model)
    with bar("grading", len(known)) as done:
        result = evaluate_model(opened, known, options, say_plan, done)
    for record in result.refused:
        note(f"{record.patient} was refused: {record.reason}.")
    show_metrics(f"{len(known) - len(result.refused)} patients of {cohort}", result.metrics)
    show_confusion(result.metrics.confusion)
    show_sites(result.sites, leave_one_site_out)
    if control:
        with bar(f"control: {control}", len(known)) as done:
            auc = evaluate_control(control, opened, known, options, done)
        show_control(control, result.metrics.auc, auc)
