"""`grade calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import Rule

EXAMPLES = (
    "grade calibrate --rule sensitivity=0.95",
    "grade calibrate runs/NAME --method temperature --rule cost=5:1",
)


def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")] = Path("runs/latest"),
    method: Annotated[
        Literal["platt", "temperature", "none"] | None, typer.Option(help="How logits become probabilities.")
    ] = None,
    rule: Rule = None,
) -> None:
    """Fit the calibration and the threshold of a run again. Nothing is trained."""
    from toolkit.environment import loading
    from toolkit.training.runs.folder import open_run

    opened = open_run(run)
    with loading():
        from cli.screens.report import show_run
        from toolkit.config import calibration_settings
        from toolkit.training.runs.outcome import recalibrate

    recalibrate(opened, calibration_settings(opened.settings.calibration, method, rule))
    show_run(opened)
