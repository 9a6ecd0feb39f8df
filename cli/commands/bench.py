"""`grade bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import MACHINE, AsJson, Device, ModelFolder, RuntimeWord

EXAMPLES = (
    "grade bench",
    "grade bench patient_dir/ --runtime onnx --device cpu --batch-size 1 --batch-size 8",
)


def command(
    patient: Annotated[Path | None, typer.Argument(help="A patient folder. Its reading is timed too.")] = None,
    model: ModelFolder = Path("model"),
    runtime: Annotated[
        RuntimeWord | None,
        typer.Option(help="Measure this one alone. Default: all that `auto` may take.", rich_help_panel=MACHINE),
    ] = None,
    device: Device = "auto",
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Repeatable. Default: 1 and the largest.", rich_help_panel=MACHINE),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Benchmark every runtime on this machine, check its output, and make `auto` use the fastest correct one."""
    from cli.console import show_json, stages
    from cli.screens.bench import show_bench
    from deploy.bench import bench, candidates
    from deploy.model.folder import open_model
    from deploy.runtime import Choice
    from toolkit.data.patients import find_patients

    opened = open_model(model)
    choices = (Choice(runtime, device),) if runtime else candidates(device)
    batches = tuple(batch_size or {1, opened.manifest.max_batch})
    with stages() as on_stage:
        found = bench(opened, choices, batches, find_patients([patient])[0] if patient else None, on_stage)
    if as_json:
        show_json(found.model_dump(mode="json"))
    else:
        show_bench(found)
