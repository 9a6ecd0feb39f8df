"""The TensorRT engine of a model: found by what it was built from and for, else built; never another's."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from deploy.model.folder import ENGINES, ONNX, Draft
from deploy.tensorrt.builder import Shapes, Tuning, build_plan
from deploy.tensorrt.cuda import cards
from deploy.tensorrt.engine_files import KEY_DIGITS, Engine, EngineRecord, digest, read_plan, records, store_engine
from deploy.tensorrt.flavours import TITLES, Target, choose_target
from toolkit.config import ExportSettings
from toolkit.errors import ModelError, SettingsError
from toolkit.files import write_file

HALF_SHARE = 0.95  # of the convolution layers, at least
_LOCK = ".lock"


class EngineRequest(NamedTuple):
    """What a user asks of an engine: `tensorrt`, `rtx` or None, and compute capabilities such as `8.9`, or none."""

    flavour: str | None = None
    capabilities: tuple[str, ...] = ()


def requested_target(request: EngineRequest) -> tuple[Target, bool]:
    """What to build, and whether the first GPU of this machine can run it.

    Raises:
        RuntimeUnavailable: as `choose_target`.
    """
    card = next(iter(cards()), None)
    target = choose_target(request.flavour, request.capabilities, card)
    return target, card is not None and card.compute_capability in target.compute_capabilities


def add_engine(
    model: Draft, target: Target, settings: ExportSettings, last: Path, on_stage: Callable[[str], None]
) -> Engine:
    """Put an engine into a model that is being exported: that of the last export if it fits, else a new one.

    Args:
        model: in its hidden folder.
        target: what to build.
        settings: of the export.
        last: where the last export's model may be.
        on_stage: called with what begins, in a few words.

    Raises:
        GradeError: as `provide_engine`.
    """
    title, folder = f"{TITLES[target.flavour]} {target.version}", model.folder / ENGINES
    engine = provide_engine(
        model, target, settings, (folder, last / ENGINES), lambda text: on_stage(f"{title}: {text}")
    )
    if engine.folder != folder:
        store_engine(engine, folder)
    return engine


def provide_engine(
    model: Draft, target: Target, settings: ExportSettings, folders: Sequence[Path], on_stage: Callable[[str], None]
) -> Engine:
    """The engine of a model for a card: one that is there and fits, else a new one in the first writable folder.

    Two processes that need the same engine at once build one: the second waits for the first.

    Args:
        model: whose graph in fp16 is built.
        target: flavour, version and card.
        settings: what is None there is left to an engine that exists, or to the build.
        folders: where to look, and, in this order, where to build.
        on_stage: called with what begins or continues, in a few words.

    Raises:
        ModelError: the graph is altered or unreadable, too few layers are half precision, or no folder can be written.
        RuntimeUnavailable: the build failed.
        SettingsError: the best batch is larger than the largest.
    """
    found, note = find_engine(model, target, settings, folders)
    if found:
        return found
    with _locked(_writable(folders), on_stage) as folder:
        found, _ = find_engine(model, target, settings, (folder,))  # another process may have been quicker
        return found or replace(_build(folder, model, target, settings, on_stage), note=note)


def rebuild_engine(
    model: Draft, target: Target, settings: ExportSettings, folders: Sequence[Path], note: str
) -> Engine:
    """A new engine in the first writable folder, whatever is there; `note` says why. Raises as `provide_engine`."""
    with _locked(_writable(folders), _ignore) as folder:
        return replace(_build(folder, model, target, settings, _ignore), note=note)


def find_engine(
    model: Draft, target: Target, settings: ExportSettings, folders: Sequence[Path]
) -> tuple[Engine | None, str]:
    """The first engine that fits and is whole, or None and what is wrong with the first that does not (empty: none)."""
    notes: list[str] = []
    for path, record in (entry for folder in folders for entry in records(folder)):
        if isinstance(record, ModelError):
            notes.append(str(record))
        elif misfit := _misfit(record, model, target, settings):
            notes.append(f"{path.stem} {misfit}.")
        elif (plan := read_plan(path.with_suffix(".plan"), record)) is None:
            notes.append(f"{path.with_suffix('.plan')} is not what was built: missing, cut off or altered.")
        else:
            return Engine(path.parent, record, plan, False), ""
    return None, notes[0] if notes else ""


def _misfit(record: EngineRecord, model: Draft, target: Target, settings: ExportSettings) -> str:
    """What makes an engine unfit here, to follow on its name; empty when it fits."""
    if record.onnx != model.manifest.files.get(ONNX["fp16"]):
        return "was built from other weights"
    if (record.flavour, record.version) != (target.flavour, target.version):
        return f"was built by {TITLES[record.flavour]} {record.version}, and here is {target.version}"
    if record.gpu != target.gpu or not set(target.compute_capabilities) <= set(record.compute_capabilities):
        built_for, here = (f"{x.gpu or 'cards'} of {', '.join(x.compute_capabilities)}" for x in (record, target))
        return f"was built for {built_for}, not for {here}"
    for name, wanted, found in (
        ("max_batch", model.manifest.max_batch, record.batches[2]),
        ("opt_batch", settings.opt_batch, record.batches[1]),
        ("workspace_gb", settings.workspace_gb, record.workspace_gb),
        ("opt_level", settings.opt_level, record.opt_level),
    ):
        if wanted is not None and wanted != found:
            return f"was built with {name} {found}, not {wanted}"
    if record.half_share < HALF_SHARE and not settings.allow_fp32_layers:
        return f"has {record.half} of {record.convolutions} convolution layers in half precision only"
    return ""


def _build(
    folder: Path, model: Draft, target: Target, settings: ExportSettings, on_stage: Callable[[str], None]
) -> Engine:
    """Build and write an engine; the folder's lock is held."""
    best, most = settings.opt_batch or model.manifest.max_batch, model.manifest.max_batch
    if best > most:
        raise SettingsError(f"export.opt_batch = {best}, but the model takes batches up to {most}; lower it.")
    shapes = Shapes((len(model.manifest.modalities), *model.manifest.grid.shape), best, most)
    timings = folder / f"{target.flavour}-{target.version}-{digest(target.gpu)[:KEY_DIGITS]}.timings"
    kept = timings.read_bytes() if timings.is_file() else None
    start = perf_counter()
    tuning = Tuning(settings.workspace_gb, settings.opt_level, kept)
    built = build_plan(model.onnx("fp16"), target, shapes, tuning, on_stage)
    if not built.half >= HALF_SHARE * built.convolutions > 0 and not settings.allow_fp32_layers:
        raise ModelError(
            f"only {built.half} of {built.convolutions} convolution layers of the engine are in half precision;"
            " export the graph again, or accept that with --allow-fp32-layers."
        )
    record = EngineRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        onnx=model.manifest.files[ONNX["fp16"]],
        plan=hashlib.sha256(built.plan).hexdigest(),
        flavour=target.flavour,
        version=target.version,
        gpu=target.gpu,
        compute_capabilities=target.compute_capabilities,
        batches=(1, best, most),
        workspace_gb=settings.workspace_gb,
        opt_level=settings.opt_level,
        convolutions=built.convolutions,
        half=built.half,
        proof=built.proof,
        seconds=round(perf_counter() - start, 3),
    ).sealed()
    engine = Engine(folder, record, built.plan, True)
    store_engine(engine, folder)
    if built.timings is not None:
        write_file(timings, built.timings, ModelError)
    return engine


def _writable(folders: Sequence[Path]) -> Path:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / _LOCK).open("a"):
                return folder
        except OSError:
            continue
    raise ModelError(f"no engine can be written to {' or '.join(map(str, folders))}; make one of them writable.")


@contextmanager
def _locked(folder: Path, on_stage: Callable[[str], None]) -> Iterator[Path]:
    """Hold the folder's lock; it goes with the process, so a killed one leaves none behind."""
    with (folder / _LOCK).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_stage("another process is building an engine; waiting")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield folder


def _ignore(_: str) -> None:
    """In place of a progress line."""
