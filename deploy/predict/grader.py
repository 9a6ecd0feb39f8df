"""From read patients to records: fills a batch, runs it, decides, judges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from deploy.model.folder import Model
from deploy.predict.reader import Read, read_patient
from deploy.predict.verdict import Judge
from deploy.results.record import Record, Seconds
from deploy.runtime import Array, Choice, DeviceScans, Preparer, Runtime, RuntimeOutputs, label
from deploy.runtimes.open import open_runtime
from toolkit.data.patients import Patient, printable
from toolkit.data.scan import Scan
from toolkit.errors import RuntimeUnavailable

_NOTHING: Array = np.empty(0, np.float32)  # in place of a scan that is on the card


class Seen(NamedTuple):
    """What a patient was graded from; the scan's array is used again for the next batch.

    Attributes:
        scan: float32 (4, X, Y, Z), its affine, notes and statistics.
        runtime: that answered.
        batch_size: that it is used to.
        patient: whose images can be read again.
    """

    scan: Scan
    runtime: Runtime
    batch_size: int
    patient: Patient


class Graded(NamedTuple):
    """A finished patient; `seen` is None when refused."""

    record: Record
    seen: Seen | None


class _Answer(NamedTuple):
    """A probability, what gave it, and what else it said. Without a probability, `note` is the reason."""

    probability: float | None
    note: str
    runtime: Runtime
    features: Array


@dataclass
class Timings:
    """Seconds of wall time, one stage after the other; `reading` is the readers' time, which overlaps with the rest."""

    open: float = 0.0
    self_test: float = 0.0
    waiting: float = 0.0
    infer: float = 0.0
    write: float = 0.0
    report: float = 0.0
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


@dataclass
class Grader:
    """Fills a batch, runs it, decides and judges.

    Attributes:
        model: whose answers count.
        runtime: that answers.
        batch_size: scans at once.
        timings: added to.
        card: makes the scans of boxes, in a batch of this size on the runtime's device; None: scans come finished.
    """

    model: Model
    runtime: Runtime
    batch_size: int
    timings: Timings
    card: Preparer | None = None
    reads: list[Read] = field(default_factory=list)
    filled: int = 0

    def __post_init__(self) -> None:
        manifest = self.model.manifest
        shape = (self.batch_size, len(manifest.modalities), *manifest.grid.shape)
        self._batch: Array | DeviceScans = self.card.scans if self.card else np.zeros(shape, np.float32)
        self._judges = {name: Judge(self.model, name) for name in ("", *self.model.optional)}
        self._calibrations = {name: manifest.lacking(name).calibration for name in self._judges}
        self._exact: Runtime | None = None  # fp32, opened when fp16 gives no number

    @property
    def full(self) -> bool:
        """Whether to run now; a refused patient does not wait for others."""
        return self.filled in (0, self.batch_size)

    def add(self, read: Read) -> None:
        """Copy a scan into the batch, or make it there of its box; the read one's voxels are let go."""
        if read.scan is not None:
            with self.timings.stage("infer"):
                if self.card and read.box:
                    self.card.fill(self.filled, read.box)
                elif self.card:
                    self.card.put(self.filled, read.scan.data)
            row = self._row(self.filled)
            if row is not None:
                row[:] = read.scan.data
            read = read._replace(scan=replace(read.scan, data=_NOTHING if row is None else row), box=None)
            self.filled += 1
        self.reads.append(read)

    def _row(self, number: int) -> Array | None:
        """A row of the batch, where that is on the host."""
        return self._batch[number] if isinstance(self._batch, np.ndarray) else None

    def run(self) -> list[Graded]:
        """The patients added, graded in their order; the batch is then empty.

        Returns:
            What came of each; the scans are those of the batch, good until the next patient is added.
        """
        start = perf_counter()
        answers: Iterator[_Answer] = iter(())
        try:
            with self.timings.stage("infer"):
                if self.filled:
                    # On a GPU every batch has one shape: the search for the fastest algorithms is run once, and an
                    # answer does not depend on how many patients came along.
                    scans = self._batch if padded(self.runtime) else self._batch[: self.filled]
                    outputs = self.runtime.infer(cast(Array, scans))  # the runtime's own, if not Array
                    answers = iter(self._answers(outputs))
            share = (perf_counter() - start) / max(self.filled, 1)
            self.timings.reading += sum(read.seconds for read in self.reads)
            return [self._graded(read, None if read.scan is None else next(answers), share) for read in self.reads]
        finally:
            self.reads, self.filled = [], 0

    def _graded(self, read: Read, answer: _Answer | None, share: float) -> Graded:
        if read.scan is None or answer is None:
            return Graded(self._record(read, None, 0.0), None)
        record = self._record(read, answer, share)
        size = self.batch_size if padded(answer.runtime) else 1
        return Graded(record, Seen(read.scan, answer.runtime, size, read.patient) if record.grade else None)

    def _answers(self, outputs: RuntimeOutputs) -> list[_Answer]:
        """One for each patient in the batch."""
        scanned = [(read, read.scan.missing) for read in self.reads if read.scan is not None]
        answers = self._read_off(outputs, self.runtime, [missing for _, missing in scanned])
        return [
            answer if answer.probability is not None else self._again(answer, row, *scanned[row])
            for row, answer in enumerate(answers)
        ]

    def _again(self, answer: _Answer, row: int, read: Read, missing: str) -> _Answer:
        """A scan whose answer was no number, in fp32 if it was not computed in that."""
        if self.runtime.precision == "fp32":
            return answer._replace(note="the network's answer is not a number")
        scans = self._batch[row : row + 1]  # (1, 4, X, Y, Z)
        scan = scans if isinstance(scans, np.ndarray) else scans.on_host()
        if not np.isfinite(scan).all():  # the card made it; the processor refuses what has no z-score, and says why
            again = read_patient(read.patient, self.model.manifest.grid, None, None, self.model.optional)
            if again.scan is None or again.inputs != read.inputs:
                return answer._replace(note=again.reason or "its files changed while it was graded")
            scan = again.scan.data[None]
        try:
            if self._exact is None:
                # TensorRT may be installed next to an ONNX Runtime without CUDA; each record names what answered.
                device = self.runtime.device if self.runtime.name == "onnx" else "auto"
                self._exact = open_runtime(self.model, Choice("onnx", device, "fp32"))
            exact = self._read_off(self._exact.infer(scan), self._exact, [missing])[0]
        except RuntimeUnavailable as error:
            return answer._replace(note=f"the network's answer is not a number in fp16, and fp32 failed: {error}")
        note = f"{label(answer.runtime)} gave no number, so it was answered again in fp32"
        return exact._replace(note=note if exact.probability is not None else "the network's answer is not a number")

    def _read_off(self, outputs: RuntimeOutputs, runtime: Runtime, missing: Sequence[str]) -> list[_Answer]:
        """The answers for the first rows of a batch, each calibrated for the modalities that were there."""
        finite: NDArray[np.bool_] = np.all(np.isfinite(outputs.logits), axis=1)
        numbers = outputs._replace(logits=np.where(finite[:, None], outputs.logits, 0))
        logits = numbers.logit[: len(missing)]
        values = [float(self._calibrations[name].probability(z)) for name, z in zip(missing, logits, strict=True)]
        rows = zip(values, finite, outputs.features, strict=False)
        return [_Answer(p if fine else None, "", runtime, features) for p, fine, features in rows]

    def _record(self, read: Read, answer: _Answer | None, infer: float) -> Record:
        """Without an answer, of a patient that was refused."""
        missing = read.scan.missing if read.scan else ""
        threshold, (lgg, hgg) = self._calibrations[missing].threshold, self.model.manifest.classes
        shared = {
            "patient": printable(read.patient.id),
            "folder": printable(str(read.patient.folder)),
            "threshold": threshold,
            "runtime": label(answer.runtime if answer else self.runtime),
            "engine": answer.runtime.engine_hash if answer else "",
            "inputs": read.inputs,
            "missing": missing,
            "seconds": Seconds(read=read.seconds, infer=infer),
        }
        notes = tuple(printable(note) for note in (*self._cost(missing), *read.notes))
        if read.scan is None or answer is None or answer.probability is None:
            return Record(**shared, reason=printable(answer.note if answer else read.reason), notes=notes)
        grade = hgg if answer.probability >= threshold else lgg
        verdict = self._judges[missing].verdict(grade, answer.probability, answer.features, read.scan.statistics)
        return Record(
            **shared,
            grade=grade,
            probability=answer.probability,
            verdict=verdict.word,
            explanation=verdict.sentence,
            grades=verdict.grades,
            distance=verdict.distance,
            outside=verdict.outside,
            statistics=read.scan.statistics,
            notes=(*notes, answer.note) if answer.note else notes,
        )

    def _cost(self, missing: str) -> list[str]:
        """What the lack of a modality costs, for the patient's notes."""
        return [part.cost(missing) for name, part in self.model.manifest.partial.items() if name == missing]


def padded(runtime: Runtime) -> bool:
    """Whether every batch is filled up to one shape: on a GPU."""
    return runtime.device != "cpu"
