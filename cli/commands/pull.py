"""`grade pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, Config

EXAMPLES = ("grade pull archive --worklist worklist.csv --out pulled",)


def command(
    peer: Annotated[str, typer.Argument(help="Name of a peer in \\[hospital.peers].")],
    study: Annotated[list[str] | None, typer.Option(help="Study Instance UID; repeatable.")] = None,
    worklist: Annotated[
        Path | None, typer.Option(help="CSV with a column study (UIDs), accession or patient.", metavar="CSV")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that receives one folder for each study.")] = Path("pulled"),
    web: Annotated[bool, typer.Option("--web", help="Use DICOMweb (WADO-RS).")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Fetch the MR images of studies from an archive (C-MOVE or WADO-RS). Studies that are in --out already stay.

    Exit code 0: every study came; 3: some did not; 1: none did, or an error.
    """
    from cli.options import extra, settings_from

    if not study and worklist is None:
        raise typer.BadParameter("name a --study, or a --worklist.")
    extra("pynetdicom", "hospital")
    from cli.screens.pacs import pull_all, studies_of

    settings = settings_from(config, None).hospital
    wanted = [*(study or []), *(studies_of(worklist, settings, peer, web) if worklist else [])]
    raise typer.Exit(pull_all(settings, peer, wanted, out, web))
