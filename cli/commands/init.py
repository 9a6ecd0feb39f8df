"""`grade init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import OUTPUT

EXAMPLES = ("grade init", "grade init --cohort MICCAI_BraTS_2018_Data_Training")


def command(
    out: Annotated[Path, typer.Option(help="File to write. It must not exist.", rich_help_panel=OUTPUT)] = Path(
        "grade.toml"
    ),
    cohort: Annotated[Path, typer.Option(help="Folder of patients that it names.")] = Path("cohort"),
) -> None:
    """Write a grade.toml that explains every setting. All but the cohort are commented out, at their defaults."""
    from cli.console import answer, say
    from toolkit.config import write_first_settings

    write_first_settings(out, cohort)
    answer(f"{out} written")
    say("next: look at [data], then run `grade train --dry-run`.")
