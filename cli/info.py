"""`grade info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Also show this model folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show versions, devices, runtimes and why one is missing; at once, without torch."""
    import json
    from dataclasses import asdict

    from cli.console import out, table
    from cli.tables import show_model
    from deploy.machine import gpus, package_versions, runtimes, system
    from deploy.model import open_model

    found = gpus()
    opened = open_model(model) if model else None
    if as_json:
        facts = {
            "system": system(),
            "packages": package_versions(),
            "gpus": [asdict(gpu) for gpu in found],
            "runtimes": [asdict(state) for state in runtimes(found)],
            "model": opened.manifest.model_dump(mode="json") if opened else None,
        }
        out.print_json(json.dumps(facts))
        return
    table(
        "Versions", ("", ""), [*system().items(), *((k, v or "not installed") for k, v in package_versions().items())]
    )
    table(
        "GPUs",
        ("", "memory", "driver", "capability"),
        [(g.name, f"{g.memory_gib} GiB", g.driver, g.compute_capability) for g in found] or [("none", "", "", "")],
    )
    table(
        "Runtimes",
        ("", "devices", "why not"),
        [(r.name, ", ".join(r.devices) or "none", r.reason) for r in runtimes(found)],
    )
    if opened:
        show_model(opened)
