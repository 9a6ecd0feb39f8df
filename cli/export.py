"""`grade export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")] = Path("runs/latest"),
    out: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("model"),
    max_batch: Annotated[int | None, typer.Option(min=1, max=256, help="Largest batch; else as trained.")] = None,
    trt: Annotated[bool, typer.Option("--trt", help="Also build a TensorRT engine (not in this version).")] = False,
) -> None:
    """Export a run to ONNX (fp32, fp16) and prove that it decides like the trained network."""
    from cli.console import stages
    from cli.tables import show_model
    from deploy.export import export_run
    from toolkit.config import ExportSettings
    from toolkit.errors import RuntimeUnavailable
    from toolkit.training.run import open_run

    if trt:
        raise RuntimeUnavailable("this version does not build TensorRT engines yet; export without --trt.")
    opened = open_run(run)
    settings = ExportSettings(max_batch=max_batch) if max_batch else opened.settings.export
    with stages() as on_stage:
        model = export_run(opened, out, settings, on_stage)
    show_model(model)
