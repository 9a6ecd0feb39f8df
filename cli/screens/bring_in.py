"""What `grade ingest` shows while it brings studies in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from cli.console import bar, note, say, stages, table
from deploy.hospital.cohort import build_cohort
from deploy.hospital.dicom import study_sources
from deploy.hospital.ingest import SPACE, Ingested, Refused, Source, ingest, write_refusal
from deploy.hospital.space.brain import Brain, open_brain
from deploy.hospital.study.kinds import SeriesRules
from deploy.model.folder import BRAIN, Model
from deploy.predict.brought import RECORD
from toolkit.config import LabelTable
from toolkit.config.hospital import SeriesNames
from toolkit.data.patients import Patient, find_patients
from toolkit.errors import CohortError, Interrupted, ModelError, PatientRefused
from toolkit.machine import cores


def check_brain(model: Model) -> None:
    """See that a model can take studies with the skull.

    Raises:
        ModelError: the model has none, or was trained in a space that grade does not bring studies into.
    """
    if model.manifest.space != SPACE:
        raise ModelError(
            f"model {model.folder} was trained in the space {model.manifest.space}, and grade brings studies into"
            f" {SPACE} alone; give it patients that are in its space already."
        )
    if model.manifest.brain is None:
        raise ModelError(
            f"model {model.folder} has no brain mask, which studies with the skull need; `grade export {model.folder}"
            " --brain` adds it (pip install 'glioma-grade[brain]')."
        )


def brain_of(model: Model) -> tuple[Brain, str]:
    """The brain mask's network of a model, opened, and its hash.

    Raises:
        ModelError: as `check_brain`.
    """
    check_brain(model)
    return open_brain(model.read(BRAIN), cores()), model.manifest.files[BRAIN]


def bring_in(sources: Iterable[Source | Refused], out: Path, model: Model) -> list[Ingested | Refused]:
    """Bring studies in, one after the other, and say what is being done."""
    brain = brain_of(model)
    done: list[Ingested | Refused] = []
    with stages() as stage:
        stage("reading headers")
        for number, source in enumerate(sources, start=1):
            if isinstance(source, Refused):
                done.append(source)
                continue
            tell = partial(_tell, stage, number)
            try:
                done.append(ingest(source, out, brain, tell))
            except PatientRefused as reason:
                done.append(Refused(source.id, out / source.id, str(reason)))
            stage("reading headers")
    return done


def _tell(stage: Callable[[str], None], number: int, text: str) -> None:
    stage(f"study {number}: {text}")


def patients_of(
    paths: Sequence[Path], dicom: Sequence[Path], out: Path, model: Model, names: SeriesNames
) -> tuple[Patient, ...]:
    """Patients for a prediction: finished folders as they are, studies brought in first.

    Args:
        paths: as the command got them.
        dicom: those of them that hold DICOM.
        out: receives a folder for each study; a study that is refused gets one with the reason.
        model: with the brain mask.
        names: the site's own names of series.
    """
    others = [path for path in paths if path not in dicom]
    found = list(find_patients(others)) if others else []
    sources = (source for path in dicom for source in study_sources(path, SeriesRules(names.given)))
    for one in bring_in(sources, out, model):
        found.append(write_refusal(one, out) if isinstance(one, Refused) else one.patient)
    if len({patient.id for patient in found}) < len(found):
        raise CohortError("two patients of this call have the same id; grade them in calls of their own.")
    return tuple(found)


def cohort_of(sources: Iterable[Source | Refused], labels: Path, out: Path, model: Model) -> list[Ingested | Refused]:
    """Build a cohort, with a bar over its studies."""
    check_brain(model)
    with stages() as stage:
        stage("reading headers")
        studies = list(sources)
    with bar("bringing in", len(studies)) as done:
        try:
            return build_cohort(studies, LabelTable(file=labels), out, model.folder, done)
        except KeyboardInterrupt:
            raise Interrupted("studies that are done stay; the same command resumes.") from None


def show_brought_in(done: list[Ingested | Refused], out: Path) -> None:
    """A line for each study, and where to look."""
    rows = []
    for one in done:
        if isinstance(one, Refused):
            rows.append((one.id, "refused", "", one.reason))
        else:
            what = "kept from an earlier call" if one.kept else "brought in"
            rows.append((one.patient.id, what, f"{one.seconds:.0f}", "; ".join(one.notes)))
    table(f"{len(done)} studies", ("patient", "", "seconds", "remarks"), rows)
    if any(isinstance(one, Ingested) for one in done):
        say(f"folders in {out}; how each was made is in its {RECORD}.")
        note("look at ingest.png of each patient: the outline has to be the brain, edges have to continue.")
