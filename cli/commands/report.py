"""`grade report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "grade report",
    "grade report runs/NAME",
)


def command(run: Annotated[Path, typer.Argument(help="A run folder.")] = Path("runs/latest")) -> None:
    """Print the stability criteria of a run and write its page again. Nothing is trained or calibrated."""
    from cli.screens.train import show_run
    from toolkit.training.runs.folder import open_run
    from toolkit.training.runs.outcome import rewrite_report

    opened = open_run(run)
    rewrite_report(opened)
    show_run(opened)
