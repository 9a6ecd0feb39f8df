"""A results folder as one call keeps it: audit, journal and table, always written together and in this order.

Audit line, then record, then row. A call that is killed in between leaves an audit line whose answer never came into
the results: a resumed call grades that patient again, and the new line names the old one (`repeats`). A record whose
audit line is gone (a crash of the machine, a file that was moved away) gets one that says so (`restored`). So whatever
is in the results is in the audit, in every order of failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self, TypeAlias

from deploy.results.audit import FIRST, Audit, Standing, check_answer
from deploy.results.inputs import hash_inputs
from deploy.results.journal import Chain, Journal, Key
from deploy.results.names import INDEX, RECORD, TABLE, map_of, own_map_of, page_of, unwritable
from deploy.results.record import Record
from deploy.results.table import Table, check_writable, write_record
from toolkit.data.ahead import Ahead
from toolkit.data.patients import Patient, printable
from toolkit.errors import GradeError

Earlier: TypeAlias = Literal["refuse", "resume", "overwrite"]


class Ledger:
    """Keeps each finished patient, on one machine and on a cluster alike.

    Entering reads what the folder holds and locks it; nothing changes on disk before `writing`, so that a runtime which
    does not open, or a failed self-test, leaves the folder as it was.

    Args:
        patients: of this call, in the order of the table.
        audit: of the folder.
        earlier: what becomes of results that are in the folder. `resume` keeps all of them; `overwrite` replaces all of
            them; `refuse` replaces those of the same patients and takes those of others for an error.
        workers: threads that look whether the images of kept patients changed.
        asked: runtime and device that were asked for, or `auto`; patients who are kept must not have got another.
    """

    def __init__(
        self,
        patients: Sequence[Patient],
        audit: Audit,
        earlier: Earlier,
        workers: int = 1,
        asked: tuple[str, str] = ("auto", "auto"),
    ) -> None:
        self._folder, self._audit, self._earlier = audit.folder, audit, earlier
        self._patients = {key_of(patient): patient for patient in patients}
        self._workers, self._asked = workers, asked
        self._journal = Journal(audit.folder, audit.model)
        self._table = Table(audit.folder, audit.model)
        self._standing = Standing([{}], [FIRST], {})
        self._end = Chain(0, FIRST)  # of the audit, so far
        self._lost: list[Key] = []  # whose audit line is gone
        self._changed: set[Key] = set()  # graded in an earlier call, from other images
        self._kept: set[Key] = set()
        self._rows: list[Key] = []
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        """Look at the folder and lock it.

        Raises:
            GradeError: it cannot be written; another call writes to it; its results are of another model, of other
                patients, or were altered.
        """
        check_writable(self._folder)
        self._journal.__enter__()
        try:
            if self._earlier == "resume":
                self._resume()
            elif self._earlier == "refuse":
                self._refuse_others()
            else:
                self._take_up_audit({})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._table.close()
        self._journal.__exit__()

    def kept(self, patient: Patient) -> Record | None:
        """The record of an earlier call that stays; None: to be graded."""
        key = key_of(patient)
        return self._journal.read(key) if key in self._kept else None

    @property
    def others(self) -> int:
        """How many patients of earlier calls, not among those of this one, stay in the results."""
        return len(self._journal.entries.keys() - self._patients.keys()) if self._earlier == "resume" else 0

    @contextmanager
    def writing(self, head: Mapping[str, object]) -> Iterator[None]:
        """Take records inside the block; then, or after an error, leave table and full record in order.

        Args:
            head: what `predictions.json` says about the call.

        Raises:
            GradeError: the disk does not take it.
        """
        self._begin()
        complete = False
        try:
            yield
            complete = True
        finally:
            self._finish({**head, "complete": complete})

    def add(self, patient: Patient, record: Record) -> None:
        """Keep a finished patient: whatever happens after, the answer is in audit, journal and table.

        Args:
            patient: who it is.
            record: what came of it.

        Raises:
            GradeError: the disk does not take it.
        """
        key = key_of(patient)
        self._keep(key, record, self._audit.add(record, self._standing.loose.pop(record.inputs, None)))
        self._table.add(record)
        self._rows.append(key)
        self._changed.discard(key)

    def _keep(self, key: Key, record: Record, line: Chain) -> None:
        self._journal.add(key, record, line)
        self._end = line

    def _take_up_audit(self, links: Mapping[int, str]) -> None:
        self._standing = self._audit.standing(links)
        self._end = Chain(len(self._standing.hashes) - 1, self._standing.hashes[-1])

    def _refuse_others(self) -> None:
        if self._journal.damage:
            raise self._journal.damage
        self._take_up_audit({})
        entries = self._journal.entries
        if others := len(entries.keys() - self._patients.keys()):
            raise GradeError(
                f"{self._folder} holds results of {others} other patient{'s' * (others > 1)}; add to them with"
                " --resume, replace them with --overwrite, or name another folder with --out."
            )
        if not entries and (self._folder / TABLE).exists() and not self._journal.known:
            raise self._strange()
        if entries:
            self.notes.append("The results of an earlier call on the same patients are replaced; --resume keeps them.")

    def _resume(self) -> None:
        journal = self._journal
        if journal.damage:
            raise journal.damage
        if not journal.known and (self._folder / TABLE).exists():
            raise self._strange()
        if strange := journal.models - {self._audit.model}:
            raise GradeError(
                f"{self._folder} holds results of model {min(strange)[:12]}, and this is {self._audit.model[:12]}; name"
                " another folder with --out, or replace the results with --overwrite."
            )
        self._refuse_twins()
        self._take_up_audit(journal.links)
        hashes = self._standing.hashes
        self._lost = []
        for key, entry in journal.entries.items():
            if _is_line(hashes, entry.audit):
                check_answer(self._folder, self._standing.lines[entry.audit.lines], journal.read(key))
            else:
                self._lost.append(key)
        if self._lost:
            self.notes.append(f"{len(self._lost)} results have no line in the audit; lines are added that say so.")
        finished = [key for key in self._patients if key in journal.entries and journal.entries[key].graded]
        known = [(self._patients[key], journal.read(key).missing) for key in finished]
        with Ahead(lambda one: hash_inputs(*one), known, self._workers) as images:
            for key in finished:
                record = journal.read(key)
                (self._kept if images.take() == record.inputs else self._changed).add(key)
                if key in self._kept:
                    self._refuse_another_runtime(record)
        if self._changed:
            names = sorted(name for name, _ in self._changed)
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            self.notes.append(f"The images of {shown} changed after they were graded; they are graded again.")

    def _refuse_twins(self) -> None:
        """One name, one patient: in the table, in the pages, over all calls into one folder."""
        known = self._journal.entries.keys()
        names, folders = {name for name, _ in known}, {folder for _, folder in known}
        again = {folder for _, folder in known & self._patients.keys()}  # one folder, linked under several names
        for name, folder in self._patients.keys() - known:
            if name in names:
                raise GradeError(
                    f"{self._folder} holds results of another patient {name}, whose folder is not {printable(folder)};"
                    " name another folder with --out."
                )
            if folder in folders - again:
                raise GradeError(
                    f"{self._folder} holds the patient in {printable(folder)} under another name than {name}; name the"
                    " same folders as before, or another one with --out."
                )

    def _refuse_another_runtime(self, kept: Record) -> None:
        """An option that has no effect on those who are kept must not look as if it had one."""
        name, *_, device = kept.runtime.split()
        runtime, card = self._asked
        if runtime not in ("auto", name) or card.split(":")[0] not in ("auto", device.split(":")[0]):
            raise GradeError(
                f"{kept.patient} was graded by {kept.runtime} and is kept, but {runtime} on {card} was asked for; leave"
                " out --runtime and --device, or grade all patients again with --overwrite."
            )

    def _strange(self) -> GradeError:
        return GradeError(
            f"{self._folder} holds a {TABLE} that no call can be resumed from; replace it with --overwrite, or name"
            " another folder with --out."
        )

    def _begin(self) -> None:
        journal, resumed = self._journal, self._earlier == "resume"
        over = self._changed.copy() if resumed else set(journal.entries)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            journal.begin(keep=resumed)
            self._drop_pages(over)
            (self._folder / RECORD).unlink(missing_ok=True)  # it would not belong to the new table
        except OSError as error:
            raise unwritable(self._folder, error) from error
        for key in self._lost:
            record = journal.read(key)
            self._keep(key, record, self._audit.add(record, self._standing.loose.pop(record.inputs, None), True))
        self._rows = [key for key in journal.entries if key not in self._patients or key in self._kept]
        self._table.begin(journal.read(key) for key in self._rows)

    def _finish(self, head: Mapping[str, object]) -> None:
        """The table in order: patients of earlier calls, then those of this one; the same in `predictions.json`."""
        entries = self._journal.entries
        order = [key for key in entries if key not in self._patients]
        order += [key for key in self._patients if key in entries and key not in self._changed]
        if order != self._rows:
            self._table.begin(self._journal.read(key) for key in order)
        self._table.close()
        audit = {"audit": self._end._asdict()}
        write_record(self._folder, {**head, **audit}, (self._journal.read(key) for key in order))

    def _drop_pages(self, keys: set[Key]) -> None:
        """Pages and maps of answers that do not stand any more."""
        for name, _ in keys:
            for file in (of(self._folder, name) for of in (page_of, map_of, own_map_of)):
                if file.exists():
                    file.unlink()
                    (self._folder / INDEX).unlink(missing_ok=True)


def key_of(patient: Patient) -> Key:
    """What tells a patient from all others: the name that is shown, and the real folder behind all links."""
    return printable(patient.id), os.path.realpath(patient.folder)


def _is_line(hashes: Sequence[str], line: Chain) -> bool:
    return 0 < line.lines < len(hashes) and hashes[line.lines] == line.last
