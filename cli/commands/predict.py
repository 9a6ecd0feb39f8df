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
    NotBefore,
    Overwrite,
    PublicKey,
    Resume,
    Revoked,
    RuntimeName,
)

EXAMPLES = (
    "grade predict patient_dir/",
    "grade predict patients/ --model model --out results --report",
    "grade predict patients/ --resume",
    "grade --no-phi predict patients/ --json",
)


def command(
    paths: Annotated[list[Path], typer.Argument(help="Patient folders, folders of patients, or DICOM studies.")],
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
        typer.Option(min=1, help="Patients read at once. Default: chosen for this machine.", rich_help_panel=MACHINE),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    require_signature: PublicKey = None,
    not_before: NotBefore = None,
    revoked: Revoked = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also write a page and an evidence map for each patient. Takes about 150 inferences per patient.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    single_file: Annotated[
        bool,
        typer.Option("--single-file", help="With --report: put the viewer into each page.", rich_help_panel=OUTPUT),
    ] = False,
    dicom_out: Annotated[
        Path | None,
        typer.Option(help="Also write each study's answer as DICOM: report and picture.", rich_help_panel=OUTPUT),
    ] = None,
    audit_ids: Annotated[
        bool, typer.Option("--audit-ids", help="Write patients' ids to audit.jsonl.", rich_help_panel=OUTPUT)
    ] = False,
    cluster: Cluster = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show who would be graded. Read nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Grade patients. Exit code 0: all graded; 3: some refused; 1: none graded, or an error."""
    import json

    from deploy.runtimes.wake import wake
    from toolkit.environment import loading

    wake("cpu" if dry_run or cluster else device)  # now: what follows takes a while to import
    with loading():
        from cli.console import show_json
        from cli.options import extra, settings_from, signed_by
        from cli.screens.predict import graded, show_plan, with_pages
        from cli.screens.studies import studies_in
        from deploy.model.folder import open_model
        from deploy.predict.pipeline import PredictOptions
        from deploy.runtime import Choice
        from toolkit.data.patients import find_patients
        from toolkit.owned import check_shared

    if resume and overwrite:
        raise typer.BadParameter("--resume keeps the results in --out, --overwrite replaces them; choose one.")
    if dry_run and (resume or overwrite):
        raise typer.BadParameter(
            "--dry-run grades no patient, so --resume and --overwrite have no effect; leave them out."
        )
    _check_pages(report, single_file, cluster)
    if cluster:
        extra("ray", "cluster")
    dicom = studies_in(paths, dry_run, dicom_out is not None)
    patients = () if dicom else find_patients(paths)
    if dry_run:
        raise typer.Exit(show_plan(patients, as_json))
    check_shared(out, ["records.jsonl", "audit.jsonl"], [], "results of grade")
    opened = open_model(model)
    if signed := signed_by(require_signature, not_before, revoked):
        opened.verify()  # the signature is of the hashes; files that this prediction does not need count, too
        signed(opened)
    site = settings_from(config, None)
    if dicom:
        from cli.screens.bring_in import patients_of

        patients = patients_of(paths, dicom, out.with_name(f"{out.name}-ingested"), opened, site.hospital.series)
    given = {"batch_size": batch_size, "workers": workers}
    settings = site.predict.model_copy(update={name: value for name, value in given.items() if value is not None})
    choice = Choice(runtime, device, own_engines=require_signature is not None)
    options = PredictOptions(out, choice, settings, audit_ids=audit_ids, resume=resume, overwrite=overwrite)
    if cluster:
        from cli.screens.cluster import graded_on_cluster

        code = graded_on_cluster(patients, opened, options, cluster, as_json)
    else:
        code = (with_pages(single_file) if report else graded)(patients, opened, options, as_json)
    if dicom_out:
        from cli.screens.dicom_out import write_out

        write_out(paths, out, opened, site.hospital, dicom_out)
    if as_json:
        show_json(json.loads((out / "predictions.json").read_text(encoding="utf-8")))
    raise typer.Exit(code)


def _check_pages(report: bool, single_file: bool, cluster: str | None) -> None:
    if single_file and not report:
        raise typer.BadParameter("--single-file is about the pages of --report; give both.")
    if cluster and report:
        raise typer.BadParameter(
            "--report needs the images at hand; grade on the cluster, then make the pages with grade report RESULTS."
        )
