"""`grade ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, Config


def command(
    study: Annotated[Path, typer.Argument(help="DICOM: a folder, a zip, a DICOMDIR or one enhanced file.")],
    series: Annotated[
        list[str] | None,
        typer.Option(help="Overrule the choice of one series, by number or UID: t1ce=8; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the table of series and the choice; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Bring a scanner's study in: recognise its four series.

    Exit code 0: every study has its four series; 3: some studies are refused; 1: all are, or an error.
    """
    from cli.options import settings_from
    from cli.screens.ingest import rules_from, show_studies

    rules = rules_from(settings_from(config, None).hospital.series, series)
    if not dry_run:
        raise typer.BadParameter("say --dry-run: the table of series is all there is so far.")
    raise typer.Exit(show_studies(study, rules, as_json))
