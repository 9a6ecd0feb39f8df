"""`grade evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import DEFAULT_CONFIG, INPUT, OUTPUT, AsJson, Config, Device, Overwrite, Resume, RuntimeName

EXAMPLES = (
    "grade evaluate model COHORT",
    "grade evaluate model COHORT --labels table.csv --leave-one-site-out --control mask-tumour",
)


def command(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    cohort: Annotated[Path, typer.Argument(help="Folder of patients with known grades.")],
    labels: Annotated[Path | None, typer.Option(help="Table of grades.", rich_help_panel=INPUT)] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.", rich_help_panel=OUTPUT)] = Path("evaluation"),
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    leave_one_site_out: Annotated[
        bool, typer.Option("--leave-one-site-out", help="Also compute the AUC without each site.")
    ] = False,
    control: Annotated[
        Literal["mask-tumour"] | None,
        typer.Option(help="Also compute the AUC with the tumour (seg file) replaced by the brain's median."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Grade patients of known grade: metrics with intervals, sites, a confusion table, pictures and a page."""
    from toolkit.environment import loading
    from toolkit.owned import check_shared

    check_shared(out, ["records.jsonl", "audit.jsonl"], [], "results of grade")
    with loading():
        from cli.console import bar, note, say, show_json
        from cli.options import settings_from
        from cli.privacy import hide_table
        from cli.screens.evaluate import facts
        from cli.screens.predict import say_plan, warn_of_origin
        from cli.tables import show_confusion, show_control, show_metrics, show_sites
        from deploy.evaluate import EVALUATION, evaluate_control, evaluate_model
        from deploy.model.folder import open_model
        from deploy.predict.pipeline import PredictOptions
        from deploy.runtime import Choice
        from toolkit.config import LabelTable
        from toolkit.data.labels import read_cohort

    table = LabelTable(file=labels) if labels else None
    settings = settings_from(config, None).predict
    opened = open_model(model)
    warn_of_origin(opened)
    hide_table(table)
    known = read_cohort(cohort, table)
    for sentence in known.notes:
        note(sentence)
    options = PredictOptions(out, Choice(runtime, device), settings, resume=resume, overwrite=overwrite)
    with bar("grading", len(known)) as done:
        result = evaluate_model(opened, known, options, say_plan, done)
    controlled = None
    if control:
        with bar(f"control: {control}", len(known)) as done:
            controlled = evaluate_control(control, opened, options, result, done)
    if as_json:
        show_json(facts(known, result, out, controlled))
        return
    for record in result.graded.refused:
        note(f"{record.patient} was refused: {record.reason}.")
    show_metrics(f"{len(known) - len(result.graded.refused)} patients of {cohort}", result.metrics)
    show_confusion(result.metrics.confusion)
    show_sites(result.sites, leave_one_site_out)
    if controlled:
        for patient, reason in controlled.left_out.items():
            note(f"{patient} is not in the control: {reason}.")
        show_control(controlled)
    say(f"page: {out / EVALUATION}")
