"""`grade bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import ModelFolder


def command(
    patient: Annotated[Path | None, typer.Argument(help="A patient folder whose reading is timed too.")] = None,
    model: ModelFolder = Path("model"),
    runtime: Annotated[str | None, typer.Option(help="onnx, tensorrt or torch; else all that `auto` may take.")] = None,
    device: Annotated[str, typer.Option(help="auto (CPU and GPU), cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[list[int] | None, typer.Option(help="Repeatable; else 1 and the largest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Measure every runtime here, compare its answers, and let `auto` take the fastest that answers right."""
    from cli.console import out, stages
    from cli.screens.bench import show_bench
    from deploy.bench import bench, candidates
    from deploy.model import open_model
    from deploy.runtimes import Choice
    from toolkit.data.patients import find_patients

    opened = open_model(model)
    choices = (Choice(runtime, device),) if runtime else candidates(device)
    batches = tuple(batch_size or {1, opened.manifest.max_batch})
    with stages() as on_stage:
        found = bench(opened, choices, batches, find_patients([patient])[0] if patient else None, on_stage)
    if as_json:
        out.print_json(found.model_dump_json())
    else:
        show_bench(found)
