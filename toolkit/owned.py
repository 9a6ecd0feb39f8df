"""Folders that a command writes and may replace: only what it wrote is ever deleted."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit.errors import GradeError
from toolkit.files import write_file
from toolkit.plain import parse_json, read_bytes


class _Record(BaseModel):
    """What was written. Files: relative path -> sha256, or the target of a link."""

    model_config = ConfigDict(extra="forbid", strict=True)

    writing: list[str] = []
    files: dict[str, str] = {}


class OwnedFolder:
    """A folder with a hidden list of the files that were written to it.

    Args:
        folder: may not exist yet.
        mark: name of the list.
        what: such as `demo`, for sentences.
    """

    def __init__(self, folder: Path, mark: str, what: str) -> None:
        self._folder, self._mark, self._what = folder, folder / mark, what

    def begin(self) -> None:
        """Make the folder empty, if it holds nothing but what was written to it.

        Raises:
            GradeError: it holds something else, or a file that was changed; nothing is deleted.
        """
        if self._folder.is_symlink() or (self._folder.exists() and not self._folder.is_dir()):
            raise GradeError(f"{self._folder} is a link or a file; name another folder with --out.")
        if self._folder.is_dir() and any(self._folder.iterdir()):
            if stranger := self._stranger(self._read()):
                raise GradeError(
                    f"{self._folder} holds {stranger}, which is not of the last {self._what} or was changed since; "
                    "name another folder with --out, or delete this one."
                )
            shutil.rmtree(self._folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GradeError(f"{self._folder} cannot be made: {error.strerror}; name another with --out.") from error
        self._write(_Record())

    @contextmanager
    def writing(self, *names: str) -> Iterator[None]:
        """Inside the block everything below these names in the folder is written by us."""
        record = self._read()
        self._write(_Record(writing=list(names), files=record.files))
        yield
        for name in names:
            record.files |= {path: _content(self._folder / path) for path in _files(self._folder, name)}
        self._write(_Record(files=record.files))

    def _stranger(self, record: _Record) -> str | None:
        """The first file that was not written by us or not left as it was."""
        for path in _files(self._folder, ""):
            ours = path == self._mark.name or path.split("/")[0] in record.writing
            if not ours and record.files.get(path) != _content(self._folder / path):
                return path
        return None

    def _read(self) -> _Record:
        try:
            return _Record.model_validate(parse_json(read_bytes(self._mark) or b"{}"))
        except (OSError, ValueError, ValidationError):
            return _Record()

    def _write(self, record: _Record) -> None:
        write_file(self._mark, record.model_dump_json(indent=1) + "\n")


def check_shared(folder: Path, marks: Collection[str], only: Collection[str], what: str) -> None:
    """Refuse to write among other people's files.

    Args:
        folder: where a command is about to write; hidden files in it do not count.
        marks: names of files by which an earlier one of the same kind is known.
        only: names that may be there without a mark, since a call that was interrupted leaves them.
        what: such as `a study`, for the sentence.

    Raises:
        GradeError: the folder holds something, and none of the marks.
    """
    if not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    strangers = names - set(only)
    if strangers and not names & set(marks):
        raise GradeError(
            f"{folder} holds something other than {what}, {min(strangers)} for one; name another folder with --out."
        )


def _files(folder: Path, below: str) -> Iterator[str]:
    """Relative paths of all files and links, sorted."""
    start = folder / below
    if below and not start.is_dir():
        yield from [below] if start.exists() else []
        return
    for place, folders, files in os.walk(start):
        folders.sort()
        for name in sorted([*files, *(name for name in folders if (Path(place) / name).is_symlink())]):
            yield (Path(place) / name).relative_to(folder).as_posix()


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if not path.is_file():
        return "no file"  # a pipe or a socket belongs to the user alone
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise GradeError(f"{path} cannot be read: {error.strerror}; name another folder with --out.") from error
