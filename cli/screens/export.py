"""What an export looks like in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.console import note, say, stages
from deploy.cuda import cards
from deploy.engine import provide_engine
from deploy.engine_files import Engine, EngineRecord, read_record, records, store_engine
from deploy.export import export_run
from deploy.flavours import TITLES, choose_target
from deploy.model import ENGINES, Model
from deploy.runtimes import Choice
from toolkit.config import ExportSettings
from toolkit.training.run import Run


def exported(run: Run, out: Path, settings: ExportSettings, wanted: tuple[str | None, tuple[str, ...]] | None) -> Model:
    """Export a run and show the stages.

    Args:
        run: a training that ended.
        out: the model folder.
        settings: of the export.
        wanted: an engine's flavour and compute capabilities; None for no engine.

    Raises:
        GradeError: as `export_run` and `provide_engine`; without TensorRT, before anything is written.
    """
    if wanted is None:
        with stages() as on_stage:
            return export_run(run, out, settings, on_stage)
    card = next(iter(cards()), None)
    target = choose_target(*wanted, card)
    engines: list[Engine] = []
    with stages() as on_stage:

        def add(model: Model) -> Sequence[Choice]:
            """The engine, or that of the model which is at `out` now, if it fits."""
            title = f"{TITLES[target.flavour]} {target.version}"
            folder = model.folder / ENGINES
            folders = (folder, out / ENGINES)
            engine = provide_engine(model, target, settings, folders, lambda text: on_stage(f"{title}: {text}"))
            if engine.folder != folder:
                store_engine(engine, folder)
            engines.append(engine)
            runs_here = card is not None and card.compute_capability in target.compute_capabilities
            return (Choice("tensorrt", "cuda", "fp16"),) if runs_here else ()

        model = export_run(run, out, settings, on_stage, add)
    # Read again: a comparison on this machine's GPU is in the record by now.
    record = read_record(model.folder / ENGINES / f"{engines[0].record.name}.json")
    _say_engine(replace(engines[0], folder=model.folder / ENGINES, record=record))
    return model


def facts(model: Model) -> dict[str, Any]:
    """A model as JSON knows it: where it is, its manifest, its engines."""
    return {
        "folder": str(model.folder),
        "fingerprint": model.fingerprint,
        "manifest": model.manifest.model_dump(mode="json"),
        "engines": {
            path.stem: record.model_dump(mode="json") if isinstance(record, EngineRecord) else str(record)
            for path, record in records(model.folder / ENGINES)
        },
    }


def packed(model: Model, bundle: Path | None, triton: Path | None) -> None:
    """Write a model as others want it: a MONAI bundle, models of a Triton repository; None leaves it out.

    Raises:
        ModelError: as `write_bundle` and `write_repository`.
    """
    if bundle:
        from deploy.bundle import write_bundle  # here, since it loads MONAI

        write_bundle(model, bundle)
        say(f"MONAI bundle of model {model.short}: {bundle}; docs/README.md there says how to run it.")
    if triton:
        from deploy.triton import write_repository  # here, since it needs tritonclient

        written = write_repository(model, triton)
        say(f"Triton repository {triton}: {', '.join(written.names)}")
        for sentence in written.notes:
            note(sentence)


def _say_engine(engine: Engine) -> None:
    record = engine.record
    if engine.note:
        note(f"{engine.note.rstrip('.')}; a new engine was built.")
    how = f"built in {record.seconds:.1f} s" if engine.built else "kept from the last export"
    say(
        f"{TITLES[record.flavour]} {record.version} engine for {record.gpu or 'compute capability'}"
        f" {', '.join(record.compute_capabilities)}: {how}, {len(engine.plan) / 2**20:.0f} MiB,"
        f" batches {record.batches[0]} to {record.batches[2]}, tuned for {record.batches[1]};"
        f" file {engine.path}"
    )
    say(
        f"{record.half} of {record.convolutions} convolution layers in half precision ({record.half_share:.0%}, read in"
        f" the {record.proof}); parity {record.parity}"
    )
