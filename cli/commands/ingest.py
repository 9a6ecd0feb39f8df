"""`grade ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, Config, ModelFolder

EXAMPLES = ("grade ingest study.zip --out ingested", "grade ingest study/ --dry-run --json")


def command(
    study: Annotated[
        Path, typer.Argument(help="DICOM: a folder, a zip, a DICOMDIR or one enhanced file; with --raw NIfTI folders.")
    ],
    out: Annotated[Path, typer.Option(help="Folder that receives one patient folder for each study.")] = Path(
        "ingested"
    ),
    model: ModelFolder = Path("model"),
    raw: Annotated[
        bool, typer.Option("--raw", help="STUDY is a folder of raw NIfTI files, or a folder of such folders.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table of grades by PatientID or StudyInstanceUID: make --out a cohort for `grade train`.",
            metavar="FILE",
        ),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(help="Overrule the choice of one series, by number or UID: t1ce=8; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the table of series and the choice; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Bring a scanner's study into BraTS space: recognise its series, register, turn, mask the brain.

    Exit code 0: every study was brought in; 3: some studies were refused; 1: all were, or an error.
    """
    from cli.options import extra, settings_from
    from cli.screens.ingest import rules_from, show_studies

    rules = rules_from(settings_from(config, None).hospital.series, series)
    if dry_run:
        if raw:
            raise typer.BadParameter("--dry-run shows the series of DICOM studies; raw files are told by their names.")
        raise typer.Exit(show_studies(study, rules, as_json))
    if as_json:
        raise typer.BadParameter("--json belongs to --dry-run; a patient's ingest.json holds all of the rest.")
    if raw and series:
        raise typer.BadParameter("--series chooses among DICOM series; raw files are told by their names.")
    extra("SimpleITK", "hospital")
    from cli.screens.bring_in import bring_in, cohort_of, show_brought_in
    from cli.screens.predict import exit_code
    from deploy.hospital.dicom import study_sources
    from deploy.hospital.ingest import Ingested
    from deploy.hospital.raw import raw_sources
    from deploy.model.folder import open_model

    sources = raw_sources(study) if raw else study_sources(study, rules)
    done = cohort_of(sources, labels, out, open_model(model)) if labels else bring_in(sources, out, open_model(model))
    show_brought_in(done, out)
    brought = sum(isinstance(one, Ingested) for one in done)
    raise typer.Exit(exit_code(brought, len(done) - brought))
