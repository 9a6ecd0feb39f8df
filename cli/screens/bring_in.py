"""What `grade ingest` shows while it brings studies in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from cli.console import note, say, stages, table
from deploy.hospital.ingest import RECORD, SPACE, Ingested, Refused, Source, ingest
from deploy.hospital.space.brain import Brain, open_brain
from deploy.model import BRAIN, Model
from toolkit.errors import ModelError, PatientRefused
from toolkit.machine import cores


def brain_of(model: Model) -> tuple[Brain, str]:
    """The brain mask's network of a model, opened, and its hash.

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
    return open_brain(model.file(BRAIN), cores()), model.manifest.files[BRAIN]


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
