"""`service.jsonl`: a line for every reception, answer, sending and deletion, without names, chained by hashes.

A line has the form of `audit.jsonl`: `grade verify --audit` checks both. Studies appear as the hash of their UID.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from toolkit.errors import GradeError
from toolkit.plain import parse_json

EVENTS = "service.jsonl"
_FIRST = "0" * 64
_MARK = ', "hash": "'
_LAST = 1 << 16  # bytes at the end of the file that hold its last line


class Events:
    """Appends lines; one process alone does.

    Args:
        folder: of the service.
        model: fingerprint of the model, in every line.

    Raises:
        GradeError: the file cannot be read, or its last line was altered.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._file, self._model = folder / EVENTS, model
        self._number, self._previous = self._end()

    def note(self, event: str, study: str, **facts: object) -> None:
        """Append one line.

        Args:
            event: `received`, `repeated`, `answered`, `sent`, `failed` or `deleted`.
            study: its key.
            facts: more, without names.

        Raises:
            GradeError: the disk does not take it.
        """
        content = {
            "line": self._number + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "study": study,
            **facts,
            "model": self._model,
            "previous": self._previous,
        }
        body = json.dumps(content, allow_nan=False).removesuffix("}")
        seal = hashlib.sha256(body.encode()).hexdigest()
        try:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(f'{body}{_MARK}{seal}"}}\n')
        except OSError as error:
            raise GradeError(f"{self._file} cannot be written: {error.strerror}; free some disk space.") from error
        self._number, self._previous = self._number + 1, seal

    def _end(self) -> tuple[int, str]:
        """Number and hash of the last line; what a killed service left of one is cut off."""
        try:
            with self._file.open("a+b") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(0, size - _LAST))
                tail = stream.read()
                torn = len(tail) - (tail.rfind(b"\n") + 1)
                if torn:
                    stream.truncate(size - torn)
        except OSError as error:
            raise GradeError(f"{self._file} cannot be opened: {error.strerror}; set hospital.folder.") from error
        lines = tail[: len(tail) - torn].splitlines()
        if not lines:
            return 0, _FIRST
        body, mark, seal = lines[-1].decode(errors="replace").rpartition(_MARK)
        try:
            if not mark or hashlib.sha256(body.encode()).hexdigest() != seal.removesuffix('"}'):
                raise ValueError(seal)
            return int(parse_json(lines[-1])["line"]), seal.removesuffix('"}')
        except (ValueError, KeyError, TypeError):
            raise GradeError(
                f"the last line of {self._file} was altered; move the file away, it is not continued."
            ) from None
