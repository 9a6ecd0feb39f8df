"""A cohort for `grade train` out of a hospital's own studies: brought in by several processes, resumable."""

from __future__ import annotations

import csv
import hashlib
import io
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from deploy.hospital.ingest import Ingested, Refused, Source, ingest
from deploy.hospital.space.brain import Brain, open_brain
from deploy.model.folder import BRAIN, open_model
from toolkit.config import LabelTable
from toolkit.data.labels import read_labels
from toolkit.data.patients import CLASSES
from toolkit.errors import CohortError, PatientRefused
from toolkit.files import write_file
from toolkit.machine import cores, memory

LABELS, REFUSED = "labels.csv", "refused.csv"
EACH = 1700 * 2**20  # bytes that one process takes
_MEMORY_SHARE = 0.8
_open: dict[str, tuple[Brain, str]] = {}  # of a worker process


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
    for result in _in_processes([source for source, _ in wanted], out, model):
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
    grades = {_digest(name): grade for name, grade in zip(table.ids, table.grades, strict=True)}
    wanted: list[tuple[Source, int]] = []
    refused: list[Ingested | Refused] = []
    persons: dict[str, str] = {}
    for source in sources:
        if isinstance(source, Refused):
            refused.append(source)
            continue
        grade = next((grades[name] for name in source.names if grades.get(name) is not None), None)
        person = source.names[0] if source.names else source.id
        if grade is None:
            refused.append(Refused(source.id, Path(), "the table of labels has no grade for it"))
        elif person in persons:
            refused.append(Refused(source.id, Path(), f"study {persons[person]} is of the same patient"))
        else:
            persons[person] = source.id
            wanted.append((source, grade))
    return wanted, refused


def _in_processes(sources: Sequence[Source], out: Path, model: Path) -> Iterator[Ingested | Refused]:
    count = processes(len(sources))
    threads = max(1, cores() // count)
    if count == 1:
        _start(model, threads)
        for source in sources:
            yield _bring_in(source, out)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _start, (model, threads)) as pool:
        jobs = [pool.submit(_bring_in, source, out) for source in sources]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start(folder: Path, threads: int) -> None:
    model = open_model(folder)
    _open["brain"] = open_brain(model.read(BRAIN), threads), model.manifest.files[BRAIN]


def _bring_in(source: Source, out: Path) -> Ingested | Refused:
    try:
        return ingest(source, out, _open["brain"], _ignore)
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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _ignore(_: str) -> None:
    """Several studies at once have no stage to show."""
