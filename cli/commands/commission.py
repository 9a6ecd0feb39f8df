"""`grade commission`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import (
    DEFAULT_CONFIG,
    INPUT,
    OUTPUT,
    AsJson,
    Config,
    Device,
    NotBefore,
    Overrides,
    Overwrite,
    PublicKey,
    Revoked,
    RuntimeName,
)

EXAMPLES = (
    "grade commission model LOCAL_COHORT",
    "grade commission model LOCAL_COHORT --labels table.csv --out acceptance",
)


def command(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    cohort: Annotated[Path, typer.Argument(help="Folder of the site's own patients, with or without known grades.")],
    labels: Annotated[Path | None, typer.Option(help="Table of grades.", rich_help_panel=INPUT)] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.", rich_help_panel=OUTPUT)] = Path("commission"),
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    overwrite: Overwrite = False,
    signature: PublicKey = None,
    not_before: NotBefore = None,
    revoked: Revoked = None,
    config: Config = DEFAULT_CONFIG,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Test a model at a site: this machine, the site's own patients, the card's claims. One page with the verdict.

    Exit code 0: pass; 3: restrict or do not use; 1: an error.
    """
    from toolkit.owned import check_shared

    check_shared(out, ["records.jsonl", "audit.jsonl"], [], "results of grade")
    from cli.console import note, show_json, stages
    from cli.options import settings_from, signed_by
    from cli.privacy import hide_table
    from cli.screens.commission import patients_of, show_commission
    from deploy.life.commission import commission
    from deploy.life.commission_page import facts, write_commission
    from deploy.model.folder import open_model
    from deploy.predict.pipeline import PredictOptions
    from deploy.runtime import Choice
    from toolkit.config import LabelTable

    settings = settings_from(config, overrides)
    opened = open_model(model)
    if check := signed_by(signature, not_before, revoked):
        check(opened)
    table = LabelTable(file=labels) if labels else None
    hide_table(table)
    site, notes = patients_of(cohort, table)
    for sentence in notes:
        note(sentence)
    options = PredictOptions(out, Choice(runtime, device), settings.predict, overwrite=overwrite)
    with stages() as on_stage:
        watch = (on_stage, lambda record: on_stage(f"graded {record.patient}"))
        found = commission(opened, site, options, settings.commission, watch)
    write_commission(out, opened, found)
    if as_json:
        show_json(facts(opened, found))
    else:
        show_commission(opened, found, out)
    raise typer.Exit(0 if found.verdict == "pass" else 3)
