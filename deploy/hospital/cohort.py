"""A cohort for `grade train` out of a hospital's own studies: brought in by several processes, resumable."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path

from deploy.hospital.ingest import Ingested, Refused, Source, ingest
from deploy.hospital.service.child import Child
from deploy.hospital.space.brain import Brain, open_brain
from deploy.hospital.study.facts import digest
from deploy.model.folder import BRAIN, open_model
from toolkit.config import LabelTable
from toolkit.data.labels import read_labels
from toolkit.data.patients import CLASSES
from toolkit.errors import CohortError, GradeError, PatientRefused
from toolkit.files import write_file
from toolkit.machine import cores, memory

LABELS, REFUSED = "labels.csv", "refused.csv"
EACH = 1700 * 2**20  # bytes that one process takes
_MEMORY_SHARE = 0.8


def build_cohort(
    sources: Sequence[Source | Refused],
    labels: LabelTable,
    out: Path,
    model: Path,
    on_done: Callable[[Ingested | Refused], None],
) -> list[Ingested | Refused]:
    """Bring labelled studies into `out/<id>/` and write `labels.csv` and `refused.csv` there.

    What an earlier call brought in is kept, so an interrupted call is resumed by the same call.

    Args:
        sources: of an archive.
        labels: grades by PatientID, StudyInstanceUID or the study's key.
        out: the cohort.
        model: folder of the model whose brain mask is taken.
        on_done: called with each study as it is done.

    Returns:
        One entry for each study.

    Raises:
        CohortError: the table cannot be read, or names none of the studies.
    """
    wanted, done = _labelled(sources, labels)
    if not wanted:
        raise CohortError(f"{labels.file} names none of the {len(sources)} studies by PatientID or StudyInstanceUID.")
    out.mkdir(parents=True, exist_ok=True)
    for one in done:
        on_done(one)
    grades = {source.id: grade for source, grade in wanted}
    with closing(_in_processes([source for source, _ in wanted], out, model)) as results:
        for result in results:
            done.append(result)
            on_done(result)
            _write_tables(out, done, grades)
    _write_tables(out, done, grades)
    return done


def processes(studies: int) -> int:
    """How many studies at once: two cores and the memory of one network for each."""
    return max(1, min(studies, cores() // 2, int(_MEMORY_SHARE * memory() / EACH)))


def _labelled(
    sources: Sequence[Source | Refused], labels: LabelTable
) -> tuple[list[tuple[Source, int]], list[Ingested | Refused]]:
    """Studies with a grade, one for each patient; the others are refused with the reason."""
    table = read_labels(labels)
    grades = {digest(name): grade for name, grade in zip(table.ids, table.grades, strict=True)}
    bearers = _bearers(sources)
    wanted: list[tuple[Source, int]] = []
    refused: list[Ingested | Refused] = []
    taken: dict[str, str] = {}
    for source in sources:
        if isinstance(source, Refused):
            refused.append(source)
            continue
        found = {name: grade for name in source.names if (grade := grades.get(name)) is not None}
        grade = next((grade for name, grade in found.items() if len(bearers[name]) == 1), None)
        person = source.person or source.id
        if grade is None:
            why = (
                "several patients of the archive have this PatientID; name the StudyInstanceUID in the table of labels"
            )
            refused.append(Refused(source.id, Path(), why if found else "the table of labels has no grade for it"))
        elif person in taken:
            refused.append(Refused(source.id, Path(), f"study {taken[person]} is of the same patient"))
        else:
            taken[person] = source.id
            wanted.append((source, grade))
    return wanted, refused


def _bearers(sources: Sequence[Source | Refused]) -> dict[str, set[str]]:
    """Who bears a name: the PatientID of two hospitals may mean two people."""
    found: dict[str, set[str]] = {}
    for source in sources:
        if isinstance(source, Source):
            for name in source.names:
                found.setdefault(name, set()).add(source.person or source.id)
    return found


def _in_processes(sources: Sequence[Source], out: Path, model: Path) -> Generator[Ingested | Refused]:
    count = processes(len(sources))
    threads = max(1, cores() // count)
    if count == 1:
        brain = _opened(model, threads)
        for source in sources:
            yield _bring_in(source, out, brain)
        return
    waiting = iter(sources)
    in_hand: dict[Child, Source] = {}
    try:
        for source in islice(waiting, count):
            _hire(in_hand, source, out, model, threads)
        while in_hand:
            talking = wait([child.pipe for child in in_hand])
            for child in [child for child in in_hand if child.pipe in talking]:
                yield _result(child, in_hand[child], out)
                del in_hand[child]
                child.end()
                for source in islice(waiting, 1):
                    _hire(in_hand, source, out, model, threads)
    finally:  # an error, or Ctrl-C: what is in hand is not finished
        for child in in_hand:
            child.end(0.0)


def _hire(in_hand: dict[Child, Source], source: Source, out: Path, model: Path, threads: int) -> None:
    """A process for one study: nothing that a library keeps adds up over an archive."""
    in_hand[Child(_work, source, out, model, threads)] = source


def _result(child: Child, source: Source, out: Path) -> Ingested | Refused:
    try:
        said: Ingested | Refused | Exception = child.pipe.recv()
    except (EOFError, OSError):
        why = f"its process ended with {child.ending()}, as when memory runs out; the same call tries it again"
        return Refused(source.id, out / source.id, why)
    if isinstance(said, Exception):
        raise said
    return said


def _work(source: Source, out: Path, model: Path, threads: int, parent: Connection) -> None:
    try:
        parent.send(_bring_in(source, out, _opened(model, threads)))
    except (GradeError, OSError) as error:
        parent.send(error)


def _opened(folder: Path, threads: int) -> tuple[Brain, str]:
    model = open_model(folder)
    return open_brain(model.read(BRAIN), threads), model.manifest.files[BRAIN]


def _bring_in(source: Source, out: Path, brain: tuple[Brain, str]) -> Ingested | Refused:
    try:
        return ingest(source, out, brain, _ignore)
    except PatientRefused as reason:
        return Refused(source.id, out / source.id, str(reason))


def _write_tables(out: Path, done: Sequence[Ingested | Refused], grades: dict[str, int]) -> None:
    good = sorted(one.patient.id for one in done if isinstance(one, Ingested))
    bad = sorted((one.id, one.reason) for one in done if isinstance(one, Refused))
    write_file(out / LABELS, _csv(("patient", "grade"), [(name, CLASSES[grades[name]]) for name in good]))
    write_file(out / REFUSED, _csv(("patient", "reason"), bad))


def _csv(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    table.writerows(rows)
    return text.getvalue()


def _ignore(_: str) -> None:
    """Several studies at once have no stage to show."""
