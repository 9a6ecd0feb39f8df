"""`grade calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")] = Path("runs/latest"),
    method: Annotated[str | None, typer.Option(help="platt, temperature or none.")] = None,
    rule: Annotated[str | None, typer.Option(help="youden, sensitivity=0.95 or cost=FN:FP.")] = None,
) -> None:
    """Fit the calibration and the threshold of a run anew; nothing is trained."""
    from cli.screens.train import show_run
    from toolkit.config import calibration_settings
    from toolkit.training.outcome import recalibrate
    from toolkit.training.runs import open_run

    opened = open_run(run)
    recalibrate(opened, calibration_settings(opened.settings.calibration, method, rule))
    show_run(opened)
