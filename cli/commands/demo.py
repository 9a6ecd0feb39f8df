"""`grade demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier demo there is made anew.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the patients and of the training.")] = 0,
) -> None:
    """Do everything on a synthetic cohort, on a CPU: make patients, train, calibrate, export, grade new patients."""
    from cli.screens.demo import begin, held_out, make_patients, train_and_export

    settings = begin(out, seed)
    make_patients(out, seed)
    model = train_and_export(out, settings)
    held_out(out, model)
