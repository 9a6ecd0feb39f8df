"""`grade serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, Config, Device, ModelFolder, NotBefore, PublicKey, Revoked, RuntimeName

EXAMPLES = ("grade serve", "grade serve --watch incoming")


def command(
    model: ModelFolder = Path("model"),
    watch: Annotated[
        Path | None,
        typer.Option(help="Take studies from this folder instead of the network.", metavar="DIR"),
    ] = None,
    network: Annotated[
        bool | None, typer.Option("--network/--no-network", help="Receive by DICOM. Default: yes, without --watch.")
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Show the status page on loopback.")] = True,
    reports: Annotated[
        bool, typer.Option("--report", help="Also write a page for each patient; takes some 150 inferences each.")
    ] = False,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    require_signature: PublicKey = None,
    not_before: NotBefore = None,
    revoked: Revoked = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Receive studies from the archive, grade them, send the answers back. Stops on SIGTERM after the study in hand."""
    from cli.options import extra, settings_from, signed_by

    extra("pynetdicom", "hospital")
    from cli.screens.serve import Wanted, serve
    from deploy.model.folder import open_model
    from deploy.runtime import Choice

    if signed := signed_by(require_signature, not_before, revoked):
        opened = open_model(model)
        opened.verify()
        signed(opened)
    networked = watch is None if network is None else network
    if not networked and watch is None:
        raise typer.BadParameter("without the network, name a folder with --watch.")
    choice = Choice(runtime, device, own_engines=require_signature is not None)
    wanted = Wanted(model, choice, networked, watch, page, reports)
    serve(settings_from(config, None).hospital, wanted)
