"""`audit.jsonl`: who was graded by what, one line each, without saying who; altered or lost lines show.

A line ends in `, "hash": "..."}`: the SHA-256 of the line up to that comma. `previous` is the hash of the line before,
64 zeros in the first one. The chain finds an accident and a careless hand; someone who rewrites the whole file can
make a new chain, so keep the last hash elsewhere too (`predictions.json` has it).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from deploy.results.journal import Chain, audit_links
from deploy.results.names import AUDIT, JOURNAL, RECORD, append_line
from deploy.results.record import Record
from toolkit.errors import GradeError
from toolkit.plain import MOST_LINE, MOST_TABLE, open_plain, parse_json, read_json

FIRST = "0" * 64
_MARK = b', "hash": "'
_TAIL = len(_MARK) + 64 + len(b'"}\n')
_MOST = 1 << 16  # bytes of a line
_ANSWER = ("inputs", "engine", "runtime", "threshold", "grade", "probability", "verdict")  # a record's, in its line


class Standing(NamedTuple):
    """What an audit file holds when a call takes it up.

    Attributes:
        lines: the answer in every line, `{}` before the first one: line N is at N.
        hashes: of every line, `FIRST` before the first one: the hash of line N is at N.
        loose: hash of the inputs -> the last line that no record names: its answer never came into the results.
    """

    lines: list[dict[str, Any]]
    hashes: list[str]
    loose: dict[str, int]


class Audit:
    """Appends to an audit file. Several processes may append to one; a line is on its way to the disk at once.

    Args:
        folder: of the results; the file is made where it is missing, and no whole line is ever taken away.
        versions: of the libraries, in every line.
        model: fingerprint of the model.
        ids: whether to write patients' ids; nothing else in a line tells who it is.
    """

    def __init__(self, folder: Path, versions: Mapping[str, str], model: str, ids: bool) -> None:
        self.folder, self.model = folder, model
        self._file, self._versions, self._ids = folder / AUDIT, dict(versions), ids

    def standing(self, links: Mapping[int, str]) -> Standing:
        """Check the whole chain before more is added to it.

        Args:
            links: the lines that the results name, and their hashes.

        Raises:
            GradeError: a line was altered, added, removed or moved, or the file cannot be read.
        """
        lines, hashes, loose = [dict[str, Any]()], [FIRST], dict[str, int]()
        if self._file.exists():
            for number, line, content in _chain(self._file, whole=False):
                lines.append(_answer_in(content))
                hashes.append(_hash_of(line))
                if links.get(number) != hashes[number] and content.get("model") == self.model and content.get("inputs"):
                    loose[content["inputs"]] = number
        return Standing(lines, hashes, loose)

    def add(self, record: Record, repeats: int | None = None, restored: bool = False) -> Chain:
        """Append a patient's line; what a dying call left of the last one is cut off.

        Args:
            record: what was answered.
            repeats: number of an earlier line for the same images whose answer never came into the results.
            restored: the record is from an earlier call, and its line was lost.

        Returns:
            The file's state.

        Raises:
            GradeError: the file cannot be written, or its last line was altered.
        """
        more: dict[str, object] = {"versions": self._versions}
        if restored:
            more = {"restored": True}  # by which versions it was answered is not known any more
        if repeats is not None:
            more["repeats"] = repeats
        try:
            with FileIO(self._file, "ab+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                number, previous = self._end(stream)
                line = _line({"line": number + 1, **self._content(record), **more, "previous": previous})
                append_line(stream, line)
                return Chain(number + 1, _hash_of(line))
        except OSError as error:
            raise GradeError(
                f"{self._file} cannot be written: {error.strerror or error}; name another folder with --out."
            ) from error

    def _end(self, stream: FileIO) -> tuple[int, str]:
        size = stream.seek(0, os.SEEK_END)
        if not size:
            return 0, FIRST
        stream.seek(max(0, size - _MOST))
        *lines, last = stream.readall().split(b"\n")
        if last:
            stream.truncate(size - len(last))
        if not lines:
            return 0, FIRST
        whole = lines[-1] + b"\n"
        if not _whole(whole):
            raise GradeError(f"the last line of {self._file} was altered; move the file away, it is not continued.")
        return int(json.loads(whole)["line"]), _hash_of(whole)

    def _content(self, record: Record) -> dict[str, object]:
        who = {"patient": record.patient} if self._ids else {}
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **who,
            "model": self.model,
            "refused": record.grade is None,  # without the reason, which may name a file
            **{name: getattr(record, name) for name in _ANSWER},
            "seconds": round(record.seconds.read + record.seconds.infer, 3),
        }


def verify_audit(file: Path) -> Chain:
    """Check every line, and that the results next to it know the same chain.

    Args:
        file: an `audit.jsonl`.

    Raises:
        GradeError: it cannot be read; a line was altered, added, removed or moved; lines are missing at the end; or a
            patient's record has no line.
    """
    links = audit_links(file.parent) if file.name == AUDIT else {}  # first: a call may be adding to both
    lines, hashes = [dict[str, Any]()], [FIRST]
    for _, line, content in _chain(file, whole=True):
        lines.append(_answer_in(content))
        hashes.append(_hash_of(line))
    _check_results(file, hashes)
    for (number, last), record in links.values():
        if not 0 < number < len(hashes) or hashes[number] != last:
            raise GradeError(
                f"{file} has no line {number} with hash {last[:12]}, which {JOURNAL} names: lines are missing at the"
                f" end, or all were written again. There are {len(hashes) - 1}."
            )
        check_answer(file.parent, lines[number], record)
    return Chain(len(hashes) - 1, hashes[-1])


def witnesses(file: Path) -> tuple[str, ...]:
    """Names of the files next to an audit that tell whether lines are missing at its end."""
    return tuple(name for name in (RECORD, JOURNAL) if file.with_name(name).is_file())


def audit_of(folder: Path) -> dict[int, dict[str, Any]]:
    """What each line of the audit in a results folder says, by its number; the chain is checked on the way.

    Raises:
        GradeError: it cannot be read, or a line was altered, added, removed or moved.
    """
    return {number: content for number, _, content in _chain(folder / AUDIT, whole=False)}


def _answer_in(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line.get(name) for name in _ANSWER}


def check_answer(folder: Path, line: Mapping[str, Any], record: Record) -> None:
    """Is a record the answer that its line of the audit tells?

    Raises:
        GradeError: it was altered since.
    """
    if other := [name for name in _ANSWER if line.get(name) != getattr(record, name)]:
        raise GradeError(
            f"{folder / JOURNAL} was altered: what it says of {record.patient} ({', '.join(other)}) is not what"
            f" {AUDIT} tells; replace the results with --overwrite."
        )


def _chain(file: Path, whole: bool) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Number, bytes and content of each line, checked; without `whole` a half line at the end is passed over."""
    previous = FIRST
    for number, line in enumerate(_lines(file), start=1):
        if not whole and not line.endswith(b"\n"):
            return
        if not _whole(line):
            raise GradeError(f"{file}: line {number} was altered or cut off; the lines before it are intact.")
        try:
            content = parse_json(line)
        except ValueError:
            content = None
        if not isinstance(content, dict) or content.get("previous") != previous or content.get("line") != number:
            raise GradeError(f"{file}: before line {number} a line was removed, added or moved.")
        previous = _hash_of(line)
        yield number, line, content


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
        with open_plain(file) as stream:
            yield from iter(lambda: stream.readline(MOST_LINE), b"")  # a longer one is no line of ours, and so altered
    except OSError as error:
        raise GradeError(f"{file} cannot be read: {error.strerror}; name an {AUDIT} of `grade predict`.") from error


def _check_results(file: Path, hashes: list[str]) -> None:
    """`predictions.json` holds the count of lines and the last hash when it was written."""
    beside = file.with_name(RECORD)
    if not beside.is_file():
        return
    try:
        known = read_json(beside, MOST_TABLE).get("audit")
    except (OSError, ValueError, AttributeError) as error:
        raise GradeError(f"{beside} cannot be read: {error}; it says how the audit ended.") from None
    if not isinstance(known, dict):
        return
    lines = known.get("lines")
    if not isinstance(lines, int) or not 0 <= lines < len(hashes) or hashes[lines] != known.get("last"):
        raise GradeError(
            f"{file}: {RECORD} next to it knows {lines} lines ending in {known.get('last')}; there are"
            f" {len(hashes) - 1}, and these are not the same: lines were removed, or all were written again."
        )
