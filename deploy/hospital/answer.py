"""From a study's images to the objects of its answer: chosen, brought into BraTS space, graded, written as DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.hospital.dicom import study_sources
from deploy.hospital.dicom_out import MAP, Out, Shown, located, read_map, write_study
from deploy.hospital.ingest import SPACE, Refused, ingest
from deploy.hospital.results.pictures import key_pictures
from deploy.hospital.service.work import Answerer, Outcome
from deploy.hospital.space.brain import Brain, open_brain
from deploy.hospital.study.kinds import SeriesRules
from deploy.hospital.study.study import find_studies
from deploy.model.folder import BRAIN, Model, open_model
from deploy.predict.grader import Graded, Grader, Timings
from deploy.predict.reader import read_patient
from deploy.report.evidence import occlusion
from deploy.results.names import map_of, page_of
from deploy.results.record import Record, Seconds
from deploy.runtime import Array, Choice, Runtime
from deploy.runtimes.halving import Halving
from deploy.runtimes.open import open_runtime
from deploy.selftest import run_selftest
from toolkit.config.hospital import SeriesNames
from toolkit.data.patients import Patient
from toolkit.errors import ModelError, PatientRefused
from toolkit.machine import cores

PAGE = "page.html"  # of the patient, next to the objects
_PATIENTS = "patient"  # next to the results: what the study became in BraTS space


@dataclass(frozen=True)
class AnswerOptions:
    """How a service answers.

    Attributes:
        model: folder of the model, absolute.
        choice: runtime and device.
        series: the site's own names of series.
        objects: kinds of objects that an answer consists of.
        reports: whether to make the patient's page and evidence map, too.
    """

    model: Path
    choice: Choice
    series: SeriesNames
    objects: Sequence[str]
    reports: bool


def open_answerer(options: AnswerOptions) -> Answerer:
    """Open model and brain mask once, and see that the model passes its self-test.

    Raises:
        GradeError: they cannot be opened.
    """
    model = open_model(options.model)
    check_space(model)
    brain = open_brain(model.read(BRAIN), cores()), model.manifest.files[BRAIN]
    runtime = Halving(open_runtime(model, options.choice))
    run_selftest(model, runtime)
    return StudyAnswerer(model, runtime, brain, options)


def check_space(model: Model) -> None:
    """See that a model can grade what comes from a scanner.

    Raises:
        ModelError: it has no brain mask, or was trained in another space.
    """
    if model.manifest.space != SPACE:
        raise ModelError(
            f"model {model.folder} was trained in the space {model.manifest.space}; studies are brought into {SPACE}."
        )
    if model.manifest.brain is None:
        raise ModelError(
            f"model {model.folder} has no brain mask; `grade export {model.folder} --brain` adds it"
            " (pip install 'glioma-grade[brain]')."
        )


@dataclass(frozen=True)
class StudyAnswerer:
    """Answers studies with what was opened once.

    Attributes:
        model: opened.
        runtime: opened.
        brain: the brain mask's network, and the hash of its file.
        options: see `AnswerOptions`.
    """

    model: Model
    runtime: Runtime
    brain: tuple[Brain, str]
    options: AnswerOptions

    def __call__(self, images: Path, results: Path) -> Outcome:
        """Answer one study.

        Args:
            images: folder of its images.
            results: folder for the objects.

        Raises:
            GradeError: nothing of it can be read, or the answer cannot be written.
        """
        rules = SeriesRules(names=self.options.series.given)
        study = find_studies(images)[0]
        source = next(iter(study_sources(images, rules)))
        graded = self._refused(study.key, getattr(source, "reason", ""))
        if not isinstance(source, Refused):
            try:
                patient = ingest(source, results.parent / _PATIENTS, self.brain, _ignore).patient
                graded = self._grade(patient)
            except PatientRefused as reason:
                graded = self._refused(study.key, str(reason))
        record = graded.record
        evidence = self._evidence(graded, results)
        shown = Shown()
        if graded.seen is not None:
            scan = graded.seen.scan
            shown = Shown(key_pictures(scan.data, evidence), located(evidence, scan.affine, Path(record.folder)))
        write_study(study, record, shown, Out(self.model, rules, self.options.objects), results)
        return Outcome(record.grade, record.probability, record.verdict, record.reason)

    def _grade(self, patient: Patient) -> Graded:
        grader = Grader(self.model, self.runtime, 1, Timings())
        grader.add(read_patient(patient, self.model.manifest.grid, None))
        return grader.run()[0]

    def _refused(self, patient: str, reason: str) -> Graded:
        threshold = self.model.manifest.calibration.threshold
        nothing = Seconds(read=0.0, infer=0.0)
        record = Record(
            patient=patient, folder="", threshold=threshold, reason=reason, runtime=self.runtime.chosen, seconds=nothing
        )
        return Graded(record, None)

    def _evidence(self, graded: Graded, results: Path) -> Array | None:
        """The evidence map on the scan's grid, and the patient's page, where they are asked for: 150 inferences."""
        seen = graded.seen
        if seen is None:
            return None
        if self.options.reports:
            from deploy.report.pages import Pages  # loads Matplotlib

            results.mkdir(mode=0o700, parents=True, exist_ok=True)
            Pages(results, self.model, single_file=True).add(graded.record, seen)
            page_of(results, graded.record.patient).rename(results / PAGE)
            return read_map(map_of(results, graded.record.patient))
        if MAP not in self.options.objects:
            return None
        return occlusion(seen.runtime, seen.scan.data, self.model.manifest.grid.spacing, seen.batch_size)


def _ignore(_: object) -> None:
    """Stages are not shown."""
