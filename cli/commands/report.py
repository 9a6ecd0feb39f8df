"""`grade report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import OUTPUT, Device, ModelFolder, RuntimeName, refuse_given

EXAMPLES = (
    "grade report",
    "grade report runs/NAME",
    "grade report results --model model",
)
SOME_MISSING = 3


def command(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A run folder or a results folder.")] = Path("runs/latest"),
    model: ModelFolder = Path("model"),
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    single_file: Annotated[
        bool,
        typer.Option(
            "--single-file", help="Put the viewer into each page, so that it can be sent alone.", rich_help_panel=OUTPUT
        ),
    ] = False,
) -> None:
    """Write the pages of a run or of a prediction again. Nothing is trained, calibrated or graded.

    For a run, also print its stability criteria. For a results folder, make a page and evidence maps for each graded
    patient, whose images must still be there. Exit code 3: some pages are missing.
    """
    from deploy.results.names import is_results

    if not is_results(path):
        refuse_given(context, ("model", "runtime", "device", "single_file"), "on the page of a run")
        from toolkit.environment import loading
        from toolkit.training.runs.folder import open_run

        opened = open_run(path)
        with loading():
            from cli.screens.report import show_run
            from toolkit.training.runs.outcome import rewrite_report

        rewrite_report(opened)
        show_run(opened)
        return
    from cli.console import bar, note, say
    from cli.screens.predict import warn_of_origin
    from deploy.model.folder import open_model
    from deploy.report.again import write_again
    from deploy.runtime import Choice

    grader = open_model(model)
    warn_of_origin(grader)
    with bar("writing pages", None) as done:
        found = write_again(path, grader, Choice(runtime, device), single_file, done.of)
    for patient, reason in found.missing.items():
        note(f"{patient} has no new page: {reason}.")
    say(f"{found.pages} page{'s' * (found.pages != 1)} written; index: {found.page}")
    if found.missing:
        raise typer.Exit(SOME_MISSING if found.pages else 1)
