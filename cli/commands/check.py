"""`grade check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import INPUT, MACHINE, AsJson

EXAMPLES = (
    "grade check patient_dir/",
    "grade check COHORT --labels table.csv --json",
    "grade check name_mapping.csv --patient-column BraTS_2018_subject_ID",
)


def command(
    path: Annotated[Path, typer.Argument(help="A patient, a folder of patients, or a table of grades alone.")],
    labels: Annotated[Path | None, typer.Option(help="Table of grades (CSV or XLSX).", rich_help_panel=INPUT)] = None,
    patient_column: Annotated[
        str | None, typer.Option(help="Its column of ids. Default: recognised.", rich_help_panel=INPUT)
    ] = None,
    grade_column: Annotated[
        str | None, typer.Option(help="Its column of grades. Default: recognised.", rich_help_panel=INPUT)
    ] = None,
    site_column: Annotated[
        str | None, typer.Option(help="Its column of sites. Default: recognised.", rich_help_panel=INPUT)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Patients read at once. Default: one per core.", rich_help_panel=MACHINE)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read and check every patient without a model. For a cohort, also check its grades, sites and duplicates.

    Exit code 0: every patient can be graded; 3: some are refused, or grades conflict; 1: none can, or an error.
    """
    from cli.screens.check import Columns, check_folder, check_table

    columns = Columns(patient_column, grade_column, site_column)
    if path.is_file():
        check_table(path, columns, as_json)
    else:
        raise typer.Exit(check_folder(path, columns.table(labels), workers, as_json))
