"""`grade phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = (
    "grade phantom cohort --patients 100",
    "grade phantom cohort --patients 40 --difficulty 0 --spacing 2",
    "grade phantom site-b --site b --seed 1",
)


def command(
    out: Annotated[Path, typer.Argument(help="Folder to write. It must be new or empty.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same cohort, byte for byte.")] = 0,
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="0: the grade shows plainly. 1: not at all.")] = 0.5,
    spacing: Annotated[float, typer.Option(min=1, max=4, help="Voxel edge, mm. 2 is 8 times quicker than 1.")] = 1.0,
    hgg_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of HGG. Default: 0.74, at site b 0.4.")
    ] = None,
    site: Annotated[
        Literal["a", "b"],
        typer.Option(help="b: another scanner, with more noise, less contrast and less sharp images."),
    ] = "a",
) -> None:
    """Write a synthetic glioma cohort in BraTS 2018's layout, with true tumour masks."""
    from cli.console import answer, bar
    from toolkit.data.phantom.cohort import SHARES, PhantomSettings, write_cohort

    settings = PhantomSettings(
        patients, seed, difficulty, SHARES[site] if hgg_share is None else hgg_share, spacing, site
    )
    with bar("making patients", patients) as done:
        write_cohort(out, settings, done)
    answer(f"{patients} patients in {out}")
