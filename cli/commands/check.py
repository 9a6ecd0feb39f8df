"""`grade check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    path: Annotated[Path, typer.Argument(help="A patient, a folder of patients, or a table of grades alone.")],
    labels: Annotated[Path | None, typer.Option(help="Table of grades (CSV or XLSX).")] = None,
    patient_column: Annotated[str | None, typer.Option(help="Its column of ids; recognised otherwise.")] = None,
    grade_column: Annotated[str | None, typer.Option(help="Its column of grades; recognised otherwise.")] = None,
    site_column: Annotated[str | None, typer.Option(help="Its column of sites; recognised otherwise.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Reading threads; one a core otherwise.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check patients without a model: files, refusals, notes; of a cohort also grades, sites, doubles.

    Exit code 0: every patient can be graded; 3: some are refused, or grades conflict; 1: none can, or an error.
    """
    from cli.screens.check import Columns, check_folder, check_table

    columns = Columns(patient_column, grade_column, site_column)
    if path.is_file():
        check_table(path, columns, as_json)
    else:
        raise typer.Exit(check_folder(path, columns.table(labels), workers, as_json))
