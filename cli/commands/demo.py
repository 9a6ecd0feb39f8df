"""`grade demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "grade demo",
    "grade demo --out demo --seed 1",
)


def command(
    out: Annotated[Path, typer.Option(help="Output folder. An earlier demo in it is overwritten.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the patients and of the training.")] = 0,
) -> None:
    """Do everything on a synthetic cohort, on a CPU: make patients, train, calibrate, export, grade new patients."""
    from cli.screens.demo_folder import begin
    from toolkit.environment import loading

    settings = begin(out, seed)  # a folder that may not be replaced is refused before torch is loaded
    with loading():
        from cli.screens.demo import held_out, make_patients, train_and_export

    make_patients(out, seed)
    model = train_and_export(out, settings)
    held_out(out, model)
