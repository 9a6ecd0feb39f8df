"""`grade adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import INPUT, OUTPUT, AsJson, Device, NotBefore, PublicKey, Revoked, Rule

EXAMPLES = (
    "grade adapt model LOCAL_COHORT --out model-here",
    "grade adapt model LOCAL_COHORT --unlabelled MORE_PATIENTS --rule sensitivity=0.95",
)


def command(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    cohort: Annotated[Path, typer.Argument(help="Folder of local patients with known grades.")],
    labels: Annotated[Path | None, typer.Option(help="Table of grades.", rich_help_panel=INPUT)] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="Folder of more local patients, for what counts as familiar.", rich_help_panel=INPUT),
    ] = None,
    out: Annotated[Path, typer.Option(help="Model folder to write.", rich_help_panel=OUTPUT)] = Path("model-adapted"),
    rule: Rule = None,
    device: Device = "auto",
    signature: PublicKey = None,
    not_before: NotBefore = None,
    revoked: Revoked = None,
    as_json: AsJson = False,
) -> None:
    """Fit a model to a site: calibration, threshold and limits from local patients. No weight changes.

    The new model has a fingerprint and a card of its own, and needs a signature of its own.
    """
    from cli.console import bar, note, show_json
    from cli.options import signed_by
    from cli.privacy import hide_table
    from cli.screens.adapt import facts, show_adapted
    from cli.screens.export import replacing
    from deploy.life.adapt import Wish, adapt_model
    from deploy.model.folder import open_model
    from toolkit.config import LabelTable
    from toolkit.data.labels import read_cohort
    from toolkit.data.patients import find_patients

    table = LabelTable(file=labels) if labels else None
    check = signed_by(signature, not_before, revoked)
    opened = open_model(model)
    if check:
        check(opened)
    hide_table(table)
    known = read_cohort(cohort, table)
    for sentence in known.notes:
        note(sentence)
    more = find_patients([unlabelled]) if unlabelled else ()
    with replacing(out), bar("reading and grading", len(known) + len(more)) as done:
        result = adapt_model(opened, known, more, Wish(out, rule, device), done)
    if as_json:
        show_json(facts(result))
    else:
        show_adapted(result)
    if result.refused:
        raise typer.Exit(3)
