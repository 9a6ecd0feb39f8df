"""How fast a model is here, runtime by runtime, and what else a patient costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from deploy.machine import gpus, system
from deploy.model.folder import Model, library_versions
from deploy.parity import check_parity
from deploy.runtime import Array, Choice, Runtime
from deploy.runtimes.open import bench_file, open_runtime
from deploy.selftest import load_selftest, probability, run_selftest
from deploy.tensorrt.cuda import cards
from deploy.tensorrt.flavours import importable
from toolkit.config import Grid
from toolkit.data.memory import Scratch
from toolkit.data.patients import Patient, match_modalities
from toolkit.data.reading.nifti import read_nifti
from toolkit.data.scan import read_scan
from toolkit.errors import GradeError, ModelError, RuntimeUnavailable
from toolkit.files import write_file
from toolkit.frozen import Frozen

LEAST, MOST = 3, 200  # runs of a batch
SECONDS = 2.0  # of each batch, once there were LEAST runs
EXACT = Choice("onnx", "cpu", "fp32")
_LIBRARIES = (
    *("glioma-grade", "numpy", "onnxruntime", "onnxruntime-gpu"),
    *("tensorrt", "tensorrt-rtx-cu13-bindings", "torch"),
)


class Speed(Frozen):
    """One batch size on one runtime; times in ms of wall time, transfers to and from the device counted in.

    Attributes:
        batch: scans.
        first: the first run, which searches, compiles and allocates; in no other figure.
        median: of the runs after it.
        p95: 95th percentile.
        runs: how many.
        patients_per_second: at the median.
    """

    batch: int
    first: float
    median: float
    p95: float
    runs: int
    patients_per_second: float


class Measured(Frozen):
    """One runtime.

    Attributes:
        runtime: `onnx`, `tensorrt` or `torch`.
        device: `cpu` or `cuda:N`.
        precision: of the backbone.
        open_seconds: until it could answer; an engine's build included.
        parity: `passed`, or what failed: then its speed does not count.
        speeds: one per batch size, ascending.
    """

    runtime: str
    device: str
    precision: str
    open_seconds: float
    parity: str
    speeds: tuple[Speed, ...]


class Stages(Frozen):
    """What one patient costs apart from inference, ms, each the median of several runs on one thread.

    Attributes:
        read: the four files decompressed; None: no patient was given.
        preprocess: checks, z-scores, resampling; None: as above.
        copying: into the batch.
        decide: logits to probability and grade.
    """

    read: float | None
    preprocess: float | None
    copying: float
    decide: float


class Bench(Frozen):
    """All of it.

    Attributes:
        model: fingerprint.
        system: interpreter, operating system, cores.
        gpus: names.
        versions: of the libraries.
        stages: see `Stages`.
        measured: each runtime that could be opened.
        missing: the others, and why.
        fastest: what `auto` takes from now on: of those that passed parity, the one with the most patients per second.
    """

    model: str
    system: dict[str, str]
    gpus: tuple[str, ...]
    versions: dict[str, str]
    stages: Stages
    measured: tuple[Measured, ...]
    missing: dict[str, str]
    fastest: str | None


def candidates(device: str) -> tuple[Choice, ...]:
    """What is worth measuring on a device: `auto` is the CPU and, where CUDA shows a GPU, that one."""
    on_gpu = [Choice("onnx", "cuda", "fp16"), Choice("onnx", "cuda", "fp32")]
    if importable("tensorrt") or importable("rtx"):
        on_gpu.append(Choice("tensorrt", "cuda", "fp16"))
    if device == "cpu":
        return (EXACT,)
    if device == "auto":
        return (EXACT, *(on_gpu if cards() else ()))
    return tuple(choice._replace(device=device) for choice in on_gpu)


def bench(
    model: Model,
    choices: Sequence[Choice],
    batches: Sequence[int],
    patient: Patient | None,
    on_stage: Callable[[str], None],
) -> Bench:
    """Measure, compare, and keep the result for `auto`.

    Args:
        model: opened.
        choices: runtimes to measure.
        batches: sizes, each from 1 to the manifest's max_batch.
        patient: whose reading is timed; None leaves that out.
        on_stage: called with what begins.

    Raises:
        ModelError: a batch is larger than the model takes, or the model was altered.
        PatientRefused: the patient cannot be read.
        RuntimeUnavailable: not one runtime could be opened.
    """
    most = model.manifest.max_batch
    if not batches or not 1 <= min(batches) <= max(batches) <= most:
        raise ModelError(f"batches of {', '.join(map(str, batches))} were asked for; the model takes 1 to {most}.")
    scan, _ = load_selftest(model)
    reference = open_runtime(model, EXACT)
    measured: list[Measured] = []
    missing: dict[str, str] = {}
    for choice in choices:
        name = f"{choice.name} {choice.precision} {choice.device}"
        on_stage(f"{name}: opening")
        start = perf_counter()
        try:
            runtime = open_runtime(model, choice)
        except RuntimeUnavailable as error:
            missing[name] = str(error)
            continue
        seconds = perf_counter() - start
        speeds = [_speed(runtime, scan, batch, on_stage) for batch in sorted(set(batches))]
        on_stage(f"{name}: parity")
        measured.append(
            Measured(
                runtime=runtime.name,
                device=runtime.device,
                precision=runtime.precision,
                open_seconds=seconds,
                parity=_parity(model, reference, runtime, scan),
                speeds=tuple(speeds),
            )
        )
    if not measured:
        raise RuntimeUnavailable("; ".join(missing.values()) or "no runtime was named.")
    found = Bench(
        model=model.fingerprint,
        system=system(),
        gpus=tuple(gpu.name for gpu in gpus()),
        versions=library_versions(_LIBRARIES),
        stages=_stages(model, patient, scan, on_stage),
        measured=tuple(measured),
        missing=missing,
        fastest=fastest(measured),
    )
    _keep(model, found)
    return found


def fastest(measured: Iterable[Measured]) -> str | None:
    """Of the runtimes that passed parity, and that `auto` may take, the one with the most patients per second."""
    fit = [m for m in measured if m.parity == "passed" and m.runtime != "torch"]
    best = max(fit, key=lambda m: max(speed.patients_per_second for speed in m.speeds), default=None)
    return best.runtime if best else None


def _speed(runtime: Runtime, scan: Array, batch: int, on_stage: Callable[[str], None]) -> Speed:
    on_stage(f"{runtime.name} {runtime.precision} {runtime.device}: batches of {batch}")
    scans = np.repeat(scan[None], batch, axis=0)  # (B, 4, X, Y, Z)
    first = _milliseconds(lambda: runtime.infer(scans))
    runs = _repeat(lambda: runtime.infer(scans))
    median = float(np.median(runs))
    return Speed(
        batch=batch,
        first=first,
        median=median,
        p95=float(np.percentile(runs, 95)),
        runs=len(runs),
        patients_per_second=1000 * batch / median,
    )


def _parity(model: Model, reference: Runtime, runtime: Runtime, scan: Array) -> str:
    try:
        run_selftest(model, runtime)
        if (runtime.name, runtime.device, runtime.precision) != ("onnx", "cpu", "fp32"):
            check_parity(model, reference, [runtime], [("self-test", scan)], 1)
    except (ModelError, RuntimeUnavailable) as error:
        return str(error)
    return "passed"


def _stages(model: Model, patient: Patient | None, scan: Array, on_stage: Callable[[str], None]) -> Stages:
    on_stage("reading, preprocessing, deciding")
    manifest = model.manifest
    batch: Array = np.zeros((manifest.max_batch, *scan.shape), np.float32)
    outputs = open_runtime(model, EXACT).infer(scan[None])

    def copy() -> None:
        batch[0] = scan

    def decide() -> None:
        _ = manifest.classes[int(probability(outputs, manifest.calibration)[0] >= manifest.calibration.threshold)]

    read = whole = None
    if patient is not None:
        files = tuple(match_modalities(patient.folder).modalities.values())
        scratches = [Scratch() for _ in files]
        read = _median(lambda: [read_nifti(*pair) for pair in zip(files, scratches, strict=True)])
        whole = _median(lambda: read_scan(patient, Grid(**manifest.grid.model_dump())))
    return Stages(
        read=read,
        preprocess=None if read is None or whole is None else max(whole - read, 0.0),
        copying=_median(copy),
        decide=_median(decide),
    )


def _keep(model: Model, found: Bench) -> None:
    """For `auto`; a home that cannot be written only means that `auto` stays with ONNX Runtime."""
    path = bench_file(model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, found.model_dump_json(indent=2))
    except (OSError, GradeError):
        return


def _median(work: Callable[[], Any]) -> float:
    work()
    return float(np.median(_repeat(work)))


def _repeat(work: Callable[[], Any]) -> list[float]:
    runs: list[float] = []
    while len(runs) < LEAST or (sum(runs) < 1000 * SECONDS and len(runs) < MOST):
        runs.append(_milliseconds(work))
    return runs


def _milliseconds(work: Callable[[], Any]) -> float:
    start = perf_counter()
    work()
    return 1000 * (perf_counter() - start)
