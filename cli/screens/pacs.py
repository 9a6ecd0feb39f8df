"""What sending and fetching look like in the terminal, and what they note for the next call."""

from __future__ import annotations

import csv
import hashlib
from io import TextIOWrapper
from pathlib import Path

from cli.console import bar, note, say, table
from cli.screens.predict import exit_code
from deploy.hospital.network.query import find_studies_at, pull_study
from deploy.hospital.network.send import send_files
from deploy.hospital.queue import study_key
from deploy.hospital.service.outbox import store_by_web
from toolkit.config.service import ServiceSettings
from toolkit.data.tables.read import read_tables
from toolkit.errors import CohortError, GradeError
from toolkit.files import write_file
from toolkit.plain import open_plain

SENT = "sent.csv"
PULLED = "pulled.csv"
_COLUMNS = {"study": "StudyInstanceUID", "accession": "AccessionNumber", "patient": "PatientID"}


def send_folder(folder: Path, settings: ServiceSettings, name: str, web: bool, again: bool) -> None:
    """Send the DICOM files below a folder; `sent.csv` in it keeps what has arrived where.

    Raises:
        GradeError: there is nothing to send, or the peer did not take something.
    """
    files = sorted(folder.rglob("*.dcm")) if folder.is_dir() else [folder] if folder.is_file() else []
    if not files:
        raise GradeError(f"{folder} holds no .dcm file; name a folder that `grade predict --dicom-out` wrote.")
    home = folder if folder.is_dir() else folder.parent
    known = _read_rows(home / SENT)
    waiting = [file for file in files if again or _row(file, home, name) not in known]
    with bar("sending", len(waiting)) as done:

        def arrived(file: Path) -> None:
            row = _row(file, home, name)
            if row not in known:
                with (home / SENT).open("a", newline="", encoding="utf-8") as stream:
                    csv.writer(stream, lineterminator="\n").writerow(row)
            done()

        if web:
            for file in waiting:
                store_by_web([file], settings, name)
                arrived(file)
        else:
            send_files(waiting, settings, name, arrived)
    say(f"{len(waiting)} objects sent to {name}; {len(files) - len(waiting)} were there from an earlier call.")


def pull_all(settings: ServiceSettings, name: str, wanted: list[str], out: Path, web: bool) -> int:
    """Fetch studies one after the other into folders named by the hash of their UID; the exit code."""
    rows = []
    with bar("fetching", len(wanted)) as done:
        for study in dict.fromkeys(wanted):
            folder = out / study_key(study)[:16]
            try:
                count = None if folder.is_dir() else pull_study(settings, name, study, folder, web)
                rows.append((study, folder.name, "there already" if count is None else "fetched", str(count or "")))
            except GradeError as error:
                rows.append((study, "", str(error), ""))
            done()
    came = sum(bool(row[1]) for row in rows)
    out.mkdir(parents=True, exist_ok=True)
    lines = [("study", "folder", "outcome", "images"), *rows]
    write_file(out / PULLED, "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines))
    table(f"{len(rows)} studies", ("folder", "", "images"), [row[1:] for row in rows])
    if came < len(rows):
        note(f"{len(rows) - came} studies did not come; the same command tries them again. See {out / PULLED}.")
    return exit_code(came, len(rows) - came)


def studies_of(worklist: Path, settings: ServiceSettings, name: str, web: bool) -> list[str]:
    """Study UIDs of a worklist; accession numbers and patients are looked up at the peer.

    Raises:
        CohortError: the table cannot be read, lacks the column, or a cell of it says nothing certain.
        GradeError: the peer does not answer.
    """
    tables = [(one, [name.casefold() for name in one.header]) for one in read_tables(worklist)]
    sheet, header, column = next(
        ((one, header, word) for one, header in tables for word in _COLUMNS if word in header), (None, [], "")
    )
    if sheet is None:
        raise CohortError(f"{worklist} has none of the columns {', '.join(_COLUMNS)}; add one with that header.")
    place = header.index(column)
    for row in sheet.rows:
        if place in row.faults:
            raise CohortError(f"the {sheet.name}: {row.faults[place]}.")
    values = [row.cells[place] for row in sheet.rows if row.cells[place]]
    if column == "study":
        return values
    found = []
    for value in values:
        studies = find_studies_at(settings, name, {_COLUMNS[column]: value}, web)
        if not studies:
            note(f"{name} has no study with {column} {value}.")
        found += [str(study.StudyInstanceUID) for study in studies]
    return found


def _row(file: Path, home: Path, name: str) -> tuple[str, str, str]:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return name, str(file.relative_to(home)), digest


def _read_rows(file: Path) -> set[tuple[str, str, str]]:
    try:
        with TextIOWrapper(open_plain(file), newline="", encoding="utf-8") as stream:
            return {(row[0], row[1], row[2]) for row in csv.reader(stream) if len(row) == 3}
    except FileNotFoundError:
        return set()
