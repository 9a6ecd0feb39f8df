"""Run -> model folder. It appears whole and proven, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jinja2
import torch
from safetensors.torch import save
from threadpoolctl import threadpool_limits

from deploy.export.familiarity import Seen, baseline, learn_familiarity
from deploy.export.graph import write_onnx
from deploy.export.partial import learn_partial
from deploy.export.preparation import PreparationGate
from deploy.export.trained import Trained, model_spec, network_record, read_trained, whole_manifest
from deploy.lanes import Lanes, lanes_here, readers_here, some_later
from deploy.model.folder import (
    CARD,
    ENGINES,
    FAMILIARITY,
    MANIFEST,
    ONNX,
    WEIGHTS,
    WRITTEN,
    Draft,
    Model,
    file_hashes,
    open_model,
    write_manifest,
)
from deploy.model.manifest import Manifest, ModelSpec
from deploy.model.origin import People
from deploy.parity import Extreme, Gate, ask_extremes, choose_patients
from deploy.predict.reader import Wanted, reader
from deploy.runtime import Choice, Runtime, RuntimeOutputs
from deploy.runtimes.onnx import OnnxRuntime, open_onnx
from deploy.runtimes.open import open_runtime
from deploy.runtimes.torch import TorchRuntime, load_folded
from deploy.selftest import run_selftest, write_selftest
from deploy.tensorrt.engine import EngineRequest, add_engine, requested_target
from deploy.tensorrt.engine_files import Engine, engine_in
from toolkit.config import ExportSettings, Grid
from toolkit.data.content import new_salt, salted
from toolkit.data.patients import Patient
from toolkit.data.scan import Scan
from toolkit.errors import ModelError
from toolkit.evaluation.sites import SUSPECT
from toolkit.files import building, check_output, put
from toolkit.training.runs.networks import load_network
from toolkit.training.runs.run import Run

Stage = Callable[[str], None]


class Exported(NamedTuple):
    """A model that was put in its place, and the engine in it, if one was asked for."""

    model: Model
    engine: Engine | None


def export_run(
    run: Run, out: Path, settings: ExportSettings, engine: EngineRequest | None, on_stage: Stage
) -> Exported:
    """Export the best network of a run, prove that it decides like the trained one, and put it at `out`.

    Everything is built in a hidden folder next to `out`. A model that was at `out` stays there until the new one has
    passed the parity gate, and for good if it does not pass.

    Args:
        run: a training that ended; of a run of folds, the networks become one ensemble.
        out: the model folder.
        settings: largest batch.
        engine: what TensorRT engine to add; it has to pass the gate too where it can run here. None: no engine.
        on_stage: called with what begins, in a few words.

    Raises:
        RunError: the run lacks a file.
        ModelError: the gate found a difference, a patient is gone, or `out` holds something else.
        RuntimeUnavailable: the engine cannot be built here; said before anything is written.
    """
    check_output(out, MANIFEST, "model", WRITTEN)
    target, runs_here = requested_target(engine) if engine else (None, False)
    on_stage("the run")
    trained = read_trained(run)
    with building(out, "model") as folder, _lanes() as lanes:
        draft, reference, extremes = _write_parts(trained, settings, folder, lanes, on_stage)
        built = add_engine(draft, target, settings, out, on_stage) if target else None
        judged = _judged(draft, runs_here, lanes)
        gate = Gate(draft, reference, judged.all, lanes, extremes)
        manifest = _prove(trained, gate, judged, lanes, on_stage)
        (folder / CARD).write_text(_card(manifest, trained), encoding="utf-8")
        write_manifest(folder, manifest.model_copy(update={"files": file_hashes(folder, manifest.files)}))
        put(folder, out)
    return Exported(open_model(out), engine_in(out / ENGINES, built) if built else None)


@contextmanager
def _lanes() -> Iterator[Lanes]:
    """Lanes for this machine; torch has as many threads as there are for each, while the block lasts."""
    before = torch.get_num_threads()
    try:
        with lanes_here() as lanes:
            torch.set_num_threads(lanes.threads)
            yield lanes
    finally:
        torch.set_num_threads(before)


def _write_parts(
    trained: Trained, settings: ExportSettings, folder: Path, lanes: Lanes, on_stage: Stage
) -> tuple[Draft, TorchRuntime, list[Extreme]]:
    """Weights, graphs and self-test; the folder with them, the reference runtime, and what it is already asked."""
    grid = trained.run.settings.data.grid
    on_stage("weights")
    # save_file would make a file that only its owner may read.
    network = load_network(trained.run)
    weights = save({name: x.contiguous() for name, x in network.state_dict().items()})
    del network
    written = lanes.start((folder / WEIGHTS).write_bytes, weights)
    # Graphs and reference are made of the weights of the file, BatchNorm folded.
    folded = load_folded(weights, network_record(trained), WEIGHTS)
    on_stage("ONNX graphs")
    half = lanes.start(write_onnx, folded, grid, "fp16", folder / ONNX["fp16"])
    outputs = write_onnx(folded, grid, "fp32", folder / ONNX["fp32"])
    on_stage("answer of the trained network to the self-test")
    files = {WEIGHTS: sha256(weights).hexdigest()}
    spec = model_spec(trained, settings, outputs).model_copy(update={"files": files})
    reference = TorchRuntime(Draft(folder, spec, ""), "cpu", "fp32", "the trained network.", folded)
    parts = (written, half, lanes.start(write_selftest, folder, reference, grid))
    extremes = ask_extremes(grid, reference, lanes)
    for part in parts:
        part.result()
    on_stage("hashes")
    return _draft(folder, spec), reference, extremes


def _draft(folder: Path, spec: ModelSpec) -> Draft:
    """The folder as it is now, its new files hashed."""
    listed = spec.model_copy(update={"files": file_hashes(folder, spec.files)})
    return Draft(folder, listed, fingerprint="")


class _Judged(NamedTuple):
    """The runtimes that the gate compares with the trained network.

    Attributes:
        draft: what they opened.
        exact: fp32 on the CPU.
        half: fp16 where it will run in earnest: on a GPU if this machine has one, else on the CPU.
        others: fp16 as a GPU answers few scans; a TensorRT engine.
    """

    draft: Draft
    exact: OnnxRuntime
    half: OnnxRuntime
    others: tuple[Runtime, ...]

    @property
    def on_gpu(self) -> bool:
        return self.half.device != "cpu"

    @property
    def all(self) -> tuple[Runtime, ...]:
        """In the order of the model card."""
        return (self.exact, self.half, *self.others)


def _judged(draft: Draft, engine: bool, lanes: Lanes) -> _Judged:
    opened = lanes.start(open_onnx, draft, Choice("onnx", "cpu", "fp32", lanes.threads))
    half = open_onnx(draft, Choice("onnx", "auto", "fp16", lanes.threads))
    others = [open_runtime(draft, Choice("tensorrt", "cuda", "fp16"))] if engine else []
    if half.device != "cpu":
        others.append(open_onnx(draft, Choice("onnx", half.device, "fp16", scans=1)))
    return _Judged(draft, opened.result(), half, tuple(others))


def _prove(trained: Trained, gate: Gate, judged: _Judged, lanes: Lanes, on_stage: Stage) -> Manifest:
    """Gate and self-test, and what is familiar; every patient is read once.

    Features are those of fp32, the precision of the probability's limits: fp16 moves a distance by far less than
    patients differ.
    """
    draft = judged.draft
    needed = dict.fromkeys((*trained.fresh.patients, *trained.known.patients))
    choice = Choice("onnx", "auto", "fp32", scans=len(needed))
    runtime = open_runtime(draft, choice) if judged.on_gpu else judged.exact
    chosen = choose_patients(trained.validation)
    prepared = PreparationGate(draft, judged.half if judged.on_gpu else judged.exact, lanes)
    seen: dict[Patient, Seen] = {}

    def learned(patient: Patient, scan: Scan) -> Future[RuntimeOutputs] | None:
        """The answer that limits are learned from, where that is not the gate's."""
        return lanes.answer(runtime, scan.data[None]) if judged.on_gpu and patient in needed else None

    reads = _reads(chosen.patients, draft.manifest.grid, "parity: patient", on_stage)
    for patient, scan, asked, made, found in some_later(
        (*read, gate.ask(read[1].data), prepared.ask(*read), learned(*read)) for read in reads
    ):
        exact, half, *_ = gate.patient(patient.id, asked)
        prepared.patient(patient.id, made, half if judged.on_gpu else exact)
        if patient in needed:
            seen[patient] = Seen((found.result() if found else exact).features[0], scan.statistics, scan.content)
    # Asked before the batches: a card builds its kernels again when the size of a batch changes.
    tested = [lanes.ask(candidate, run_selftest, draft, candidate) for candidate in judged.all]
    on_stage("parity: extreme scans and batches")
    report = gate.report(len(trained.validation))
    on_stage("self-test")
    for test in tested:
        test.result()
    rest = tuple(one for one in needed if one not in seen)
    reads = _reads(rest, draft.manifest.grid, "what is familiar: patient", on_stage)
    for patient, scan, found in some_later((*read, lanes.answer(runtime, read[1].data[None])) for read in reads):
        seen[patient] = Seen(found.result().features[0], scan.statistics, scan.content)
    on_stage("limits and card")
    known, fresh = ([seen[one] for one in cohort.patients] for cohort in (trained.known, trained.fresh))
    familiarity, space = learn_familiarity(known, fresh)
    space.save(draft.folder / FAMILIARITY)
    salt = new_salt()
    origin = {
        "partial": learn_partial(trained, partial(lanes.answer, runtime), (familiarity, space), on_stage),
        "people": People(salt=salt, digests=salted(salt, {one.content for one in seen.values()})),
        "baseline": baseline(space, fresh),
    }
    return whole_manifest(trained, draft.manifest, report, familiarity).model_copy(update=origin)


def _reads(patients: Sequence[Patient], grid: Grid, doing: str, on_stage: Stage) -> Iterator[tuple[Patient, Scan]]:
    """Each patient and scan, read ahead in threads.

    Raises:
        ModelError: one is gone or refused.
    """
    with threadpool_limits(1, user_api="blas"), reader(patients, Wanted(grid), readers_here()) as reads:
        number = 0
        while (read := reads.take()) is not None:
            number += 1
            on_stage(f"{doing} {number} of {len(patients)}")
            if read.scan is None:
                raise ModelError(
                    f"the export needs patient {read.patient.id}, who is refused: {read.reason};"
                    f" the folder was {read.patient.folder}."
                )
            yield read.patient, read.scan


def _card(manifest: Manifest, trained: Trained) -> str:
    text = (files("deploy.export") / "card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True)  # noqa: S701 - Markdown
    environment.filters["interval"] = _interval
    settings = trained.run.settings
    # The cohort's name without its path: a card is shown around.
    cohort = settings.data.cohort.name if settings.data.cohort else "unknown"
    return environment.from_string(text).render(
        manifest=manifest, metrics=trained.metrics, settings=settings, cohort=cohort, suspect=SUSPECT
    )


def _interval(interval: tuple[float | None, float | None, float | None]) -> str:
    value, low, high = interval
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
