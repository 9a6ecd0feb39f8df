"""Read -> batch -> infer -> decide -> write, overlapped: threads read ahead while the runtime opens and computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from deploy.machine import cores
from deploy.model import Model, library_versions
from deploy.parity import run_selftest
from deploy.reader import Read, reader
from deploy.results import Record, Results, Seconds, prepare, printable
from deploy.runtimes import Array, Choice, Runtime, open_runtime
from deploy.runtimes.halving import Halving
from toolkit.config import PredictSettings
from toolkit.data.ahead import Ahead
from toolkit.data.patients import Patient
from toolkit.data.scan import Edit
from toolkit.errors import RuntimeUnavailable, SettingsError

MAX_WORKERS = 8  # a reading patient takes some 300 MB
_LIBRARIES = ("grade", "numpy", "nibabel", "imagecodecs", "onnxruntime", "onnxruntime-gpu", "tensorrt", "torch")


@dataclass(frozen=True)
class PredictOptions:
    """How to predict.

    Attributes:
        results: folder to write to.
        choice: runtime, device, precision and threads.
        settings: batch size and number of readers; None leaves them to `predict`.
        edit: changes the images, for a control experiment.
    """

    results: Path
    choice: Choice
    settings: PredictSettings
    edit: Edit | None = None


@dataclass
class Timings:
    """Seconds of wall time, one stage after the other; `reading` is the readers' own time, beside all else."""

    open: float = 0.0
    self_test: float = 0.0
    waiting: float = 0.0
    infer: float = 0.0
    write: float = 0.0
    total: float = 0.0
    reading: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + perf_counter() - start)


class Plan(NamedTuple):
    """What was chosen before the first patient is graded; `chosen` is a sentence."""

    chosen: str
    batch_size: int
    workers: int


@dataclass(frozen=True)
class Summary:
    """What came of it."""

    graded: int
    refused: int
    plan: Plan
    timings: Timings


class _Answer(NamedTuple):
    """A probability and what gave it. Without one, `note` is the reason."""

    probability: float | None
    note: str
    runtime: str


def predict(
    patients: Sequence[Patient],
    model: Model,
    options: PredictOptions,
    on_plan: Callable[[Plan], None],
    on_record: Callable[[Record], None],
) -> Summary:
    """Grade patients. Their order is kept, whatever the batch size and the number of readers.

    At most readers + 2 batches of scans are in memory. A patient that cannot be read is recorded as refused, and the
    others go on. On an interrupt or a failure the results hold every finished patient.

    Args:
        patients: as `toolkit.data.patients.find_patients` gives them.
        model: opened; the runtime's file is checked here, and the self-test is run, before anybody is graded.
        options: where to, and how.
        on_plan: called once, when runtime, batch size and number of readers are known.
        on_record: called with each patient's record, after it was written.

    Raises:
        GradeError: the results cannot be written; seen before any work is done.
        RuntimeUnavailable: the runtime or device asked for is not there, or failed.
        ModelError: the model was altered or failed its self-test.
    """
    timings = Timings()
    with timings.stage("total"):
        prepare(options.results)
        workers = options.settings.workers or min(cores(), MAX_WORKERS)
        # Parallel over patients, not inside BLAS. The runtimes do not compute with BLAS.
        with (
            threadpool_limits(1, user_api="blas"),
            reader(patients, model.manifest.grid, workers, options.edit) as reads,
        ):
            with timings.stage("open"):
                runtime = Halving(open_runtime(model, options.choice))
            batch_size = _batch_size(options.settings, model, runtime, len(patients))
            with timings.stage("self_test"):
                run_selftest(model, runtime, batch_size if _padded(runtime) else 1)
            batch_size = min(batch_size, runtime.most or batch_size)  # what the self-test found the memory to take
            plan = Plan(runtime.chosen, batch_size, workers)
            on_plan(plan)
            grader = _Grader(model, runtime, batch_size, timings)
            graded = 0
            with Results(options.results, _head(model, plan)) as results:
                for record in _records(reads, grader):
                    with timings.stage("write"):
                        results.add(record)
                    on_record(record)
                    graded += record.grade is not None
    return Summary(graded, len(patients) - graded, plan, timings)


@dataclass
class _Grader:
    """Fills a batch, runs it, decides."""

    model: Model
    runtime: Runtime
    batch_size: int
    timings: Timings
    reads: list[Read] = field(default_factory=list)
    filled: int = 0

    def __post_init__(self) -> None:
        manifest = self.model.manifest
        self._batch: Array = np.zeros((self.batch_size, len(manifest.modalities), *manifest.grid.shape), np.float32)
        self._exact: Runtime | None = None  # fp32, opened when fp16 gives no number

    @property
    def full(self) -> bool:
        """Whether to run now; a refused patient waits for nobody."""
        return self.filled in (0, self.batch_size)

    def add(self, read: Read) -> None:
        """Copy a scan into the batch; the read one is let go."""
        if read.scan is not None:
            self._batch[self.filled] = read.scan
            self.filled += 1
        self.reads.append(read._replace(scan=None))

    def run(self) -> Iterator[Record]:
        """Records of the patients added, in their order; the batch is then empty."""
        start = perf_counter()
        with self.timings.stage("infer"):
            answers = iter(self._answers())
        share = (perf_counter() - start) / max(self.filled, 1)
        for read in self.reads:
            self.timings.reading += read.seconds
            if read.reason:
                yield self._record(read, _Answer(None, read.reason, _label(self.runtime)), 0.0)
            else:
                yield self._record(read, next(answers), share)
        self.reads, self.filled = [], 0

    def _answers(self) -> list[_Answer]:
        if not self.filled:
            return []
        # On a GPU every batch has one shape: the search for the fastest algorithms is run once, and an answer does not
        # depend on how many patients came along.
        scans = self._batch if _padded(self.runtime) else self._batch[: self.filled]
        outputs = self.runtime.infer(scans)
        label = _label(self.runtime)
        values = self._probabilities(outputs.logits[: self.filled])
        return [
            _Answer(value, "", label) if value is not None else self._again(self._batch[row : row + 1])
            for row, value in enumerate(values)
        ]

    def _again(self, scan: Array) -> _Answer:
        """A scan (1, 4, X, Y, Z) whose answer was no number, in fp32 if it was not computed in that."""
        label = _label(self.runtime)
        if self.runtime.precision == "fp32":
            return _Answer(None, "the network's answer is not a number", label)
        try:
            if self._exact is None:
                # TensorRT may stand beside an ONNX Runtime without CUDA; each record names what answered.
                device = self.runtime.device if self.runtime.name == "onnx" else "auto"
                self._exact = open_runtime(self.model, Choice("onnx", device, "fp32"))
            value = self._probabilities(self._exact.infer(scan).logits)[0]
        except RuntimeUnavailable as error:
            return _Answer(None, f"the network's answer is not a number in fp16, and fp32 failed: {error}", label)
        note = f"{label} gave no number, so it was answered again in fp32"
        return _Answer(
            value, note if value is not None else "the network's answer is not a number", _label(self._exact)
        )

    def _probabilities(self, logits: Array) -> list[float | None]:
        finite: NDArray[np.bool_] = np.all(np.isfinite(logits), axis=1)
        exact = np.where(finite[:, None], logits, 0).astype(np.float64)
        values = self.model.manifest.calibration.probability(exact[:, 1] - exact[:, 0])
        return [float(p) if fine else None for p, fine in zip(values, finite, strict=True)]

    def _record(self, read: Read, answer: _Answer, infer: float) -> Record:
        threshold = self.model.manifest.calibration.threshold
        lgg, hgg = self.model.manifest.classes
        grade, reason, notes = None, answer.note, read.notes
        if answer.probability is not None:
            grade, reason = (hgg if answer.probability >= threshold else lgg), ""
            notes = (*notes, answer.note) if answer.note else notes
        return Record(
            patient=printable(read.patient.id),
            folder=printable(str(read.patient.folder)),
            grade=grade,
            probability=answer.probability,
            threshold=threshold,
            verdict=None,
            reason=printable(reason),
            notes=tuple(printable(note) for note in notes),
            runtime=answer.runtime,
            seconds=Seconds(read=read.seconds, infer=infer),
        )


def _records(reads: Ahead[Patient, Read], grader: _Grader) -> Iterator[Record]:
    while True:
        with grader.timings.stage("waiting"):
            read = reads.take(grader.batch_size)
        if read is None:
            break
        grader.add(read)
        if grader.full:
            yield from grader.run()
    yield from grader.run()


def _batch_size(settings: PredictSettings, model: Model, runtime: Runtime, patients: int) -> int:
    """On a CPU one: a batch is no faster there. On a GPU as large as the model allows, but no larger than needed."""
    most = model.manifest.max_batch
    if settings.batch_size is not None and settings.batch_size > most:
        raise SettingsError(
            f"predict.batch_size = {settings.batch_size}, but the model takes batches up to {most};"
            " lower it, or export again with a larger export.max_batch."
        )
    if runtime.device == "cpu":
        return settings.batch_size or 1
    return min(settings.batch_size or most, max(patients, 1))


def _padded(runtime: Runtime) -> bool:
    return runtime.device != "cpu"


def _label(runtime: Runtime) -> str:
    return f"{runtime.name} {runtime.precision} {runtime.device}"


def _head(model: Model, plan: Plan) -> dict[str, object]:
    """What `predictions.json` says beside the patients."""
    return {
        "model": {
            "fingerprint": model.fingerprint,
            "created": model.manifest.created,
            "calibration": model.manifest.calibration.model_dump(mode="json"),
        },
        "runtime": plan.chosen,
        "batch_size": plan.batch_size,
        "workers": plan.workers,
        "versions": library_versions(_LIBRARIES),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
