"""A model from Python: `load_model(folder).predict(patient)`. Nothing is written; `grade predict` keeps results."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, overload

from deploy.in_memory import NAME, Affine, Source, listed, patients_of
from deploy.model.folder import Model, open_model
from deploy.predict.grader import Graded, Grader, Timings, padded
from deploy.predict.reader import Read, read_patient
from deploy.report.evidence import occlusion
from deploy.results.record import Record
from deploy.runtime import Array, Choice, Runtime
from deploy.runtimes.halving import Halving
from deploy.runtimes.open import open_runtime
from deploy.selftest import run_selftest
from toolkit.config import Grid
from toolkit.data.memory import Workspace
from toolkit.data.patients import Patient
from toolkit.errors import CohortError, PatientRefused

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Answer:
    """What a model says about one patient.

    Attributes:
        record: everything that `grade predict` writes about a patient.
    """

    record: Record
    _model: GradingModel = field(repr=False)
    _source: Source = field(repr=False)

    @property
    def patient(self) -> str:
        """The id."""
        return self.record.patient

    @property
    def grade(self) -> str | None:
        """`LGG` or `HGG`; None when refused."""
        return self.record.grade

    @property
    def probability(self) -> float | None:
        """Calibrated P(HGG), 0 to 1; None when refused."""
        return self.record.probability

    @property
    def verdict(self) -> str | None:
        """How far to trust the grade, see docs/verdict.md; None when refused. Every verdict needs a human reader."""
        return self.record.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the patient was refused, or what limits the verdict, and what was noted about the images."""
        return tuple(text for text in (self.record.reason, self.record.explanation, *self.record.notes) if text)

    def evidence(self) -> tuple[Array, Affine]:
        """What moved the answer, by occlusion; some 150 inferences.

        Returns:
            float32 (X, Y, Z), in logits, for HGG where positive, and the affine (4, 4) of its grid, voxel to mm.

        Raises:
            PatientRefused: the images cannot be read, or are no longer those of the answer.
        """
        return self._model.explain(self._source, self.record.inputs)


class Answers(Sequence[Answer]):
    """Answers for several patients, in the order of the patients."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = tuple(answers)

    @overload
    def __getitem__(self, index: int) -> Answer: ...

    @overload
    def __getitem__(self, index: slice) -> Answers: ...

    def __getitem__(self, index: int | slice) -> Answer | Answers:
        return Answers(self._answers[index]) if isinstance(index, slice) else self._answers[index]

    def __len__(self) -> int:
        return len(self._answers)

    def to_pandas(self) -> pd.DataFrame:
        """A row for each patient: patient, grade, probability, threshold, verdict, reasons."""
        import pandas as pd  # here, since prediction does not load it

        columns = ("patient", "grade", "probability", "threshold", "verdict", "reasons")
        rows = [(a.patient, a.grade, a.probability, a.record.threshold, a.verdict, " ".join(a.reasons)) for a in self]
        return pd.DataFrame.from_records(rows, columns=list(columns))


class GradingModel:
    """A model folder, opened and self-tested; made by `load_model`. Threads may share it: they take turns."""

    def __init__(self, model: Model, runtime: Runtime) -> None:
        self._model, self._runtime, self._turn = model, runtime, threading.Lock()
        self._grader, self._workspace = Grader(model, runtime, 1, Timings()), Workspace()

    def __repr__(self) -> str:
        return f"GradingModel({self._model.folder}, {self._model.short}, {self._runtime.chosen})"

    @property
    def grid(self) -> Grid:
        """Shape and spacing (mm) of the scans that the model takes."""
        return self._model.manifest.grid

    @overload
    def predict(self, source: Source) -> Answer: ...

    @overload
    def predict(self, source: list[Source]) -> Answers: ...

    def predict(self, source: Source | list[Source]) -> Answer | Answers:
        """Grade a patient, or several.

        Args:
            source: a patient's folder; or four nibabel images by modality (`flair`, `t1`, `t1ce`, `t2`); or a list of
                these, in which a folder may hold several patients.

        Returns:
            For one patient its answer; for a list a table of answers, in which a refused patient has no grade.

        Raises:
            PatientRefused: the one patient cannot be graded, or the images are not those of the four modalities.
            CohortError: a folder does not exist or holds no patient; a single one holds several; or one is neither
                a folder nor images, which is told before any patient is graded.
        """
        several = listed(source)
        if isinstance(source, str | Path | Mapping):
            answers = self._answers(source)
            if len(answers) != 1:
                raise CohortError(f"{source} holds {len(answers)} patients; give a list to grade several.")
            answer = answers[0]
            if answer.grade is None:
                raise PatientRefused(answer.record.reason)
            return answer
        return Answers([answer for one in several for answer in self._answers(one)])

    def explain(self, source: Source, inputs: str) -> tuple[Array, Affine]:
        """See `Answer.evidence`; `inputs` is the hash of the files that were graded."""
        grid = self._model.manifest.grid
        with patients_of(source) as patients, self._turn:
            read = read_patient(patients[0], grid, None, self._workspace, self._model.optional)
            if read.scan is None or read.inputs != inputs:
                raise PatientRefused(read.reason or "the images are no longer those that were graded; grade them again")
            size = self._model.manifest.max_batch if padded(self._runtime) else 1
            return occlusion(self._runtime, read.scan.data, grid.spacing, size), read.scan.affine

    def _answers(self, source: Source) -> list[Answer]:
        try:
            with patients_of(source) as patients:
                return [Answer(self._grade(patient).record, self, _again(source, patient)) for patient in patients]
        except PatientRefused as refusal:  # images that make no patient: a row of the table like any refused one
            read = Read(Patient(NAME, Path(NAME)), None, str(refusal), (), 0.0)
            with self._turn:
                return [Answer(self._graded(read).record, self, source)]

    def _grade(self, patient: Patient) -> Graded:
        grid, optional = self._model.manifest.grid, self._model.optional
        with self._turn:
            return self._graded(read_patient(patient, grid, None, self._workspace, optional))

    def _graded(self, read: Read) -> Graded:
        self._grader.add(read)
        (graded,) = self._grader.run()
        return graded


def load_model(folder: str | Path = "model", *, runtime: str = "auto", device: str = "auto") -> GradingModel:
    """Open a model that `grade export` wrote, and let it pass its self-test.

    Args:
        folder: of the model.
        runtime: `auto`, `onnx`, `tensorrt` or `torch`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ModelError: the folder is no model, was altered, or fails its self-test.
        RuntimeUnavailable: the runtime or device asked for is not there.
    """
    model = open_model(Path(folder))
    opened = Halving(open_runtime(model, Choice(runtime, device)))
    run_selftest(model, opened)
    return GradingModel(model, opened)


def _again(source: Source, patient: Patient) -> Source:
    """What names the patient later on."""
    return source if isinstance(source, Mapping) else patient.folder
