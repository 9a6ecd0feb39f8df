"""`grade predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import (
    DEFAULT_CONFIG,
    MACHINE,
    OUTPUT,
    AsJson,
    Cluster,
    Config,
    Device,
    ModelFolder,
    PublicKey,
    RuntimeName,
)

EXAMPLES = (
    "grade predict patient_dir/",
    "grade predict patients/ --model model --out results --report",
    "grade predict patients/ --resume",
    "grade --no-phi predict patients/ --json",
)


def command(
    paths: Annotated[list[Path], typer.Argument(help="Patient folders, or folders of patients.")],
    model: ModelFolder = Path("model"),
    out: Annotated[Path, typer.Option(help="Results folder to write.", rich_help_panel=OUTPUT)] = Path("results"),
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Patients per batch. Default: chosen for this machine.", rich_help_panel=MACHINE),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Reading threads. Default: chosen for this machine.", rich_help_panel=MACHINE),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    require_signature: PublicKey = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also write a page and an evidence map for each patient. Takes about 150 inferences per patient.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    audit_ids: Annotated[
        bool, typer.Option("--audit-ids", help="Write patients' ids to audit.jsonl.", rich_help_panel=OUTPUT)
    ] = False,
    cluster: Cluster = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after an interruption: whoever is graded in --out stays.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show who would be graded. Read nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Grade patients. Exit code 0: all graded; 3: some refused; 1: none graded, or an error."""
    import json

    from cli.console import show_json
    from cli.options import extra, settings_from, signatures
    from cli.screens.predict import graded, reported, show_plan
    from deploy.model import open_model
    from deploy.predict import PredictOptions
    from deploy.runtimes import Choice
    from toolkit.config import PredictSettings
    from toolkit.data.patients import find_patients

    if cluster and report:
        raise typer.BadParameter(
            "--report needs the images at hand; make the pages of single patients without --cluster."
        )
    if cluster:
        extra("ray", "cluster")
    patients = find_patients(paths)
    if dry_run:
        raise typer.Exit(show_plan(patients, as_json))
    opened = open_model(model)
    if require_signature:
        opened.verify()  # the signature is of the hashes; files that this prediction does not need count, too
        signatures().check_signature(opened, require_signature)
    written = settings_from(config, None).predict
    settings = PredictSettings(batch_size=batch_size or written.batch_size, workers=workers or written.workers)
    options = PredictOptions(out, Choice(runtime, device), settings, audit_ids=audit_ids, resume=resume)
    if cluster:
        from cli.screens.cluster import graded_on_cluster

        code = graded_on_cluster(patients, opened, options, cluster, as_json)
    else:
        code = (reported if report else graded)(patients, opened, options, as_json)
    if as_json:
        show_json(json.loads((out / "predictions.json").read_text(encoding="utf-8")))
    raise typer.Exit(code)
