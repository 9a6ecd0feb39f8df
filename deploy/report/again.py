"""Pages of an earlier prediction: the images are read again, nobody is graded again, and no answer changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from deploy.model.folder import Model
from deploy.predict.grader import Seen, padded
from deploy.predict.pace import PAGE, choose_batch_size
from deploy.predict.reader import Wanted, reader
from deploy.report.pages import Pages
from deploy.results.audit import audit_of, check_answer
from deploy.results.journal import Journal
from deploy.results.names import AUDIT
from deploy.results.record import Record
from deploy.runtime import Choice
from deploy.runtimes.halving import Halving
from deploy.runtimes.open import open_runtime
from deploy.selftest import run_selftest
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient
from toolkit.errors import GradeError, PatientRefused

CHANGED = "the images are not those that were graded"


class Again(NamedTuple):
    """What came of it.

    Attributes:
        pages: written.
        missing: patient -> why there is no page, for those who were graded.
        page: of all patients.
    """

    pages: int
    missing: dict[str, str]
    page: Path


@contextmanager
def graded_in(folder: Path, model: Model) -> Iterator[list[tuple[Patient, Record]]]:
    """The patients of a results folder, locked while the block lasts; the refused ones as well.

    Raises:
        GradeError: it was altered, is of another model, or another call writes to it.
    """
    with Journal(folder, model.fingerprint) as journal:
        if journal.damage:
            raise journal.damage
        if strange := journal.models - {model.fingerprint}:
            raise GradeError(
                f"{folder} holds results of model {min(strange)[:12]}, and this is {model.fingerprint[:12]};"
                " name that model with --model."
            )
        records = {key: journal.read(key) for key in journal.entries}
        lines = audit_of(folder) if (folder / AUDIT).is_file() else {}
        for key, record in records.items():
            if line := lines.get(journal.entries[key].audit.lines):
                check_answer(folder, line, record)
        yield [(Patient(name, Path(place)), record) for (name, place), record in records.items()]


def write_again(
    folder: Path,
    model: Model,
    choice: Choice,
    single_file: bool,
    on_patients: Callable[[int], Callable[[object], None]],
) -> Again:
    """Write all pages of a results folder, and its index.

    Args:
        folder: of the results.
        model: that graded them.
        choice: of the runtime that the evidence is computed with.
        single_file: see `Pages`.
        on_patients: called with how many pages are to be made; the result is called after each.

    Raises:
        GradeError: see `graded_in`; a page cannot be written.
        RuntimeUnavailable: the runtime or device asked for is not there.
    """
    pages, missing = Pages(folder, model, single_file), dict[str, str]()
    with graded_in(folder, model) as known:
        runtime = Halving(open_runtime(model, choice._replace(scans=PAGE * len(known))))
        size = choose_batch_size(PredictSettings(), model, runtime, len(known)) if padded(runtime) else 1
        run_selftest(model, runtime, size)
        graded = [(patient, record) for patient, record in known if record.grade is not None]
        done = on_patients(len(graded))
        waiting = [patient for patient, _ in graded]
        wanted = Wanted(model.manifest.grid, None, model.optional)
        with threadpool_limits(1, user_api="blas"), reader(waiting, wanted, 1) as reads:
            for patient, record in graded:
                read = reads.take()
                if read is None or read.scan is None:
                    missing[record.patient] = read.reason if read else CHANGED
                elif read.inputs != record.inputs:
                    missing[record.patient] = CHANGED
                else:
                    try:
                        pages.add(record, Seen(read.scan, runtime, size, patient))
                    except PatientRefused as reason:
                        missing[record.patient] = str(reason)
                done(record)
        index = pages.index([record for _, record in known])
    return Again(len(graded) - len(missing), missing, index)
