"""`grade send`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, Config

EXAMPLES = ("grade send results/dicom --to archive",)


def command(
    results: Annotated[Path, typer.Argument(help="A folder with DICOM objects, such as that of --dicom-out.")],
    to: Annotated[str, typer.Option(help="Name of a peer in \\[hospital.peers].", metavar="PEER")],
    web: Annotated[bool, typer.Option("--web", help="Use DICOMweb (STOW-RS).")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also send what an earlier call has sent.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Send answers to an archive (C-STORE or STOW-RS). What an earlier call has sent is not sent twice."""
    from cli.options import extra, settings_from

    extra("pynetdicom", "hospital")
    from cli.screens.pacs import send_folder

    send_folder(results, settings_from(config, None).hospital, to, web, again)
