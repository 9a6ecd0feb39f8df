"""`audit.jsonl`: who was graded by what, one line each, without saying who; altered or lost lines show.

A line ends in `, "hash": "..."}`: the SHA-256 of the line up to that comma. `previous` is the hash of the line before,
64 zeros in the first one. The chain finds an accident and a careless hand; one who rewrites the whole file can make a
new chain, so keep the last hash elsewhere too (`predictions.json` has it).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from deploy.results.record import Record
from deploy.results.table import RECORD
from toolkit.data.header import MAX_BYTES
from toolkit.data.patients import Patient, match_modalities
from toolkit.errors import GradeError, PatientRefused

AUDIT = "audit.jsonl"
FIRST = "0" * 64
_MARK = b', "hash": "'
_TAIL = len(_MARK) + 64 + len(b'"}\n')
_MOST = 1 << 16  # bytes of a line


class Chain(NamedTuple):
    """An audit file: its lines and the hash of the last one."""

    lines: int
    last: str


class Audit:
    """Appends to an audit file. Several processes may append to one; a line is on its way to the disk at once.

    Args:
        folder: of the results; the file is made where it is missing, and never shortened.
        versions: of the libraries, in every line.
        model: fingerprint of the model.
        ids: whether to write patients' ids; nothing else in a line tells who it is.
    """

    def __init__(self, folder: Path, versions: Mapping[str, str], model: str, ids: bool) -> None:
        self._file, self._versions, self._model, self._ids = folder / AUDIT, dict(versions), model, ids

    def add(self, record: Record) -> Chain:
        """Append a patient's line.

        Returns:
            The file's state.

        Raises:
            GradeError: the file cannot be written, or its last line is not whole.
        """
        try:
            with self._file.open("a+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                number, previous = self._end(stream)
                line = _line({"line": number + 1, **self._content(record), "previous": previous})
                stream.write(line)
                stream.flush()
                return Chain(number + 1, _hash_of(line))
        except OSError as error:
            raise GradeError(
                f"{self._file} cannot be written: {error.strerror or error}; name another folder with --out."
            ) from error

    def _end(self, stream: BinaryIO) -> tuple[int, str]:
        size = stream.seek(0, os.SEEK_END)
        if not size:
            return 0, FIRST
        stream.seek(max(0, size - _MOST))
        last = stream.read().splitlines(keepends=True)[-1]
        if not _whole(last):
            raise GradeError(
                f"the last line of {self._file} was altered or cut off; move the file away, it is not continued."
            )
        return int(json.loads(last)["line"]), _hash_of(last)

    def _content(self, record: Record) -> dict[str, object]:
        who = {"patient": record.patient} if self._ids else {}
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **who,
            "inputs": record.inputs,
            "model": self._model,
            "engine": record.engine,
            "runtime": record.runtime,
            "threshold": record.threshold,
            "refused": record.grade is None,  # without the reason, which may name a file
            "grade": record.grade,
            "probability": record.probability,
            "verdict": record.verdict,
            "seconds": round(record.seconds.read + record.seconds.infer, 3),
            "versions": self._versions,
        }


def verify_audit(file: Path) -> Chain:
    """Check every line, and that the results beside know the same chain.

    Args:
        file: an `audit.jsonl`.

    Raises:
        GradeError: it cannot be read, a line was altered, added, removed or moved, or lines are missing at the end.
    """
    previous, hashes = FIRST, [FIRST]
    for number, line in enumerate(_lines(file), start=1):
        if not _whole(line):
            raise GradeError(f"{file}: line {number} was altered or cut off; the lines before it are intact.")
        content = json.loads(line)
        if content.get("previous") != previous or content.get("line") != number:
            raise GradeError(f"{file}: before line {number} a line was removed, added or moved.")
        previous = _hash_of(line)
        hashes.append(previous)
    _check_results(file, hashes)
    return Chain(len(hashes) - 1, previous)


def hash_inputs(patient: Patient) -> str:
    """SHA-256 over the patient's modality files: of the lines `<SHA-256 of the file> <modality>`, in channel order.

    Returns:
        64 hexadecimal digits; empty where a modality is missing, too large, no plain file, or cannot be read.
    """
    total = hashlib.sha256()
    try:
        for name, file in match_modalities(patient.folder).modalities.items():
            if not file.is_file() or file.stat().st_size > MAX_BYTES:  # to open a pipe would wait for ever
                return ""
            with file.open("rb") as stream:
                total.update(f"{hashlib.file_digest(stream, 'sha256').hexdigest()} {name}\n".encode())
    except (OSError, PatientRefused):
        return ""
    return total.hexdigest()


def _line(content: dict[str, object]) -> bytes:
    body = json.dumps(content, allow_nan=False).removesuffix("}").encode()
    return body + _MARK + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def _whole(line: bytes) -> bool:
    """Whether the line's hash is that of its content."""
    body = line[:-_TAIL]
    return line == body + _MARK + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def _hash_of(line: bytes) -> str:
    return line[-67:-3].decode()


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            yield from stream
    except OSError as error:
        raise GradeError(f"{file} cannot be read: {error.strerror}; name an {AUDIT} of `grade predict`.") from error


def _check_results(file: Path, hashes: list[str]) -> None:
    """`predictions.json` beside holds the count of lines and the last hash when it was written."""
    beside = file.with_name(RECORD)
    if not beside.is_file():
        return
    try:
        known = json.loads(beside.read_bytes()).get("audit")
    except (OSError, ValueError, AttributeError) as error:
        raise GradeError(f"{beside} cannot be read: {error}; it says how the audit ended.") from None
    if not isinstance(known, dict):
        return
    lines = known.get("lines")
    if not isinstance(lines, int) or not 0 <= lines < len(hashes) or hashes[lines] != known.get("last"):
        raise GradeError(
            f"{file}: {RECORD} beside it knows {lines} lines ending in {known.get('last')}; there are"
            f" {len(hashes) - 1}, and these are not the same: lines were removed or all were made anew."
        )
