"""What an export looks like in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli.console import note, say, stages
from deploy.export.export import export_run
from deploy.model.folder import BRAIN, ENGINES, MANIFEST, SIGNATURE, Model
from deploy.tensorrt.engine import EngineRequest
from deploy.tensorrt.engine_files import Engine, EngineRecord, records
from deploy.tensorrt.flavours import TITLES
from toolkit.config import ExportSettings
from toolkit.training.runs.run import Run


@contextmanager
def replacing(out: Path) -> Iterator[None]:
    """A model is written to a folder in the block; then it is said what became of the one that was there."""
    there = (out / MANIFEST).exists()
    parts = ((SIGNATURE, "its signature"), (BRAIN, "its brain mask"))
    had = [(name, words) for name, words in parts if (out / name).exists()]
    yield
    if there:
        gone = [words for name, words in had if not (out / name).exists()]
        note(f"the model that was in {out} was replaced{', with ' + ' and '.join(gone) if gone else ''}.")


def exported(run: Run, out: Path, settings: ExportSettings, engine: EngineRequest | None) -> Model:
    """Export a run and show the stages.

    Args:
        run: a training that ended.
        out: the model folder.
        settings: of the export.
        engine: what engine to add; None: no engine.

    Raises:
        GradeError: as `export_run`.
    """
    with stages() as on_stage:
        done = export_run(run, out, settings, engine, on_stage)
    if done.engine:
        _say_engine(done.engine)
    return done.model


def with_brain(model: Model) -> Model:
    """Add the brain mask's network to a model folder.

    Raises:
        ModelError: as `add_brain`.
    """
    from deploy.export.brain import add_brain  # here, since it loads torch

    signed = (model.folder / SIGNATURE).exists()
    with stages() as on_stage:
        added = add_brain(model, on_stage)
    record = added.manifest.brain
    if record:
        say(f"brain mask: {record.source}, {record.licence}; {record.differing:.4%} of its voxels differ from torch.")
        note(record.unknown)
    if signed:
        note("the model is another one now, so its signature was removed; sign it again with `grade sign`.")
    return added


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
        from deploy.formats.bundle import write_bundle  # here, since it loads MONAI

        write_bundle(model, bundle)
        say(f"MONAI bundle of model {model.short}: {bundle}; docs/README.md there says how to run it.")
    if triton:
        from deploy.formats.triton import write_repository  # here, since it needs tritonclient

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
