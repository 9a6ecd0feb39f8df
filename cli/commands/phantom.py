"""`grade phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    patients: Annotated[int, typer.Option(min=1, help="How many.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same cohort, byte for byte.")] = 0,
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="0: the grade shows; 1: nothing tells it.")] = 0.5,
    spacing: Annotated[float, typer.Option(min=1, max=4, help="Voxel edge, mm; 2 is eight times quicker.")] = 1.0,
    hgg_share: Annotated[float, typer.Option(min=0, max=1, help="Share of HGG.")] = 210 / 285,
) -> None:
    """Write a synthetic glioma cohort in BraTS 2018's layout, with true tumour masks."""
    from cli.console import bar
    from cli.console import out as console
    from toolkit.data.phantom import PhantomSettings, write_cohort

    settings = PhantomSettings(patients, seed, difficulty, hgg_share, spacing)
    with bar("making patients", patients) as done:
        write_cohort(out, settings, done)
    console.print(f"{patients} patients in {out}", soft_wrap=True)
