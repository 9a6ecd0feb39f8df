"""`grade pacs`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, Config

app = typer.Typer(no_args_is_help=True)

PeerName = Annotated[str, typer.Argument(help="Name of a peer in \\[hospital.peers].")]


@app.command("echo")
def echo(peer: PeerName, config: Config = DEFAULT_CONFIG) -> None:
    """Check that a peer answers (C-ECHO)."""
    from cli.console import say
    from cli.options import extra, settings_from

    extra("pynetdicom", "hospital")
    from deploy.hospital.network.send import echo

    echo(settings_from(config, None).hospital, peer)
    say(f"{peer} answers.")


@app.command("find")
def find(
    peer: PeerName,
    patient: Annotated[str, typer.Option(help="Patient ID; * stands for any characters.")] = "",
    accession: Annotated[str, typer.Option(help="Accession number.")] = "",
    date: Annotated[str, typer.Option(help="Study date: 20260131, or a range 20260101-20260131.")] = "",
    web: Annotated[bool, typer.Option("--web", help="Use DICOMweb (QIDO-RS).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """List the studies of a peer (C-FIND or QIDO-RS)."""
    import json

    from cli.console import out, table
    from cli.options import extra, settings_from

    extra("pynetdicom", "hospital")
    from deploy.hospital.network.query import find_studies_at, listed

    given = {"PatientID": patient, "AccessionNumber": accession, "StudyDate": date}
    if date and not re.fullmatch(r"\d{8}|\d{8}-(\d{8})?|-\d{8}", date):
        raise typer.BadParameter(f"'{date}' is no date; write 20260131, or a range 20260101-20260131.")
    match = {keyword: value for keyword, value in given.items() if value}
    if not match:
        raise typer.BadParameter(
            "name a --patient, an --accession or a --date; an archive may hold millions of studies."
        )
    rows = list(listed(find_studies_at(settings_from(config, None).hospital, peer, match, web)))
    if as_json:
        out.print_json(json.dumps(rows))
        return
    columns = ("study", "patient", "accession", "date", "description", "modalities", "images")
    table(f"{len(rows)} studies at {peer}", columns, [tuple(row.values()) for row in rows])
