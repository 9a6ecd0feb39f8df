"""How files and folders are written: whole or not at all, under the umask, with nothing left of a killed write."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from toolkit.errors import GradeError, ModelError

_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h: paths are relative to the working folder


@contextmanager
def replacing(file: Path, kind: type[GradeError] = GradeError, durable: bool = False) -> Iterator[BinaryIO]:
    """A binary stream whose content becomes `file` when the block ends without an error.

    It is written under a hidden name next to the file, and renamed. A second writer of the same file waits for the
    first. What a killed writer left is overwritten by the next one.

    Args:
        file: to write; its folder exists.
        kind: of the error.
        durable: wait until the disk has it, so that a power failure loses neither the old nor the new file.

    Raises:
        GradeError: of that kind, where the file cannot be written; it is as it was, and nothing is left next to it.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with _claimed(temporary) as stream:
            try:
                yield stream
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
                temporary.replace(file)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise kind(_unwritable(str(file), error)) from error


def _unwritable(what: str, error: OSError) -> str:
    reason = error.strerror or first_line(error)
    return f"{what} cannot be written: {reason}; free some disk space, fix the permissions, or choose another folder."


def write_file(file: Path, content: bytes | str, kind: type[GradeError] = GradeError) -> None:
    """Write a file whole or not at all; text as UTF-8.

    Raises:
        GradeError: as `replacing`.
    """
    with replacing(file, kind) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def building(out: Path, what: str, kind: type[GradeError] = ModelError) -> Iterator[Path]:
    """A hidden folder next to `out`, gone at the end whatever happens; earlier ones of killed calls go now.

    Args:
        out: where `put` will put it.
        what: such as `model`, for the sentence.
        written: patterns of all files, relative to `out`, that we write there; empty: not asked.
        kind: of the error.

    Raises:
        GradeError: of that kind, where the folder cannot be written.
    """
    place = out.absolute()
    folder = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        sweep(place.parent, f".{escape(place.name)}.*.tmp")
        folder.mkdir()
        held = os.open(folder, os.O_RDONLY)
        try:
            _lock(held, wait=False)
            yield folder
        finally:
            os.close(held)
    except OSError as error:
        raise kind(_unwritable(f"{what} {out}", error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(folder: Path, out: Path) -> None:
    """Put a finished folder at `out`; what was there ends up in its place, to be deleted."""
    if not out.exists():
        folder.rename(out)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    exchanged = hasattr(libc, "renameat2") and not libc.renameat2(
        _AT_FDCWD, os.fsencode(folder), _AT_FDCWD, os.fsencode(out), _RENAME_EXCHANGE
    )
    if exchanged:
        return
    # Some file systems (NFS, for one) cannot exchange two folders: for a moment there is nothing at `out`.
    old = folder.with_suffix(".old")
    out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_output(out: Path, mark: str, what: str, written: Collection[str] = ()) -> None:
    """Refuse to replace what is something else, or holds something else.

    Args:
        out: where the folder will be put.
        mark: a file, relative to `out`, that tells an earlier one.
        what: such as `model`, for the sentence.
        written: patterns of all files, relative to `out`, that we write there; empty: not asked.

    Raises:
        ModelError: `out` is a link, a file, or a folder that holds other things.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ModelError(f"{out} is a link or a file; name another folder for the {what}.")
    if out.is_dir() and any(out.iterdir()) and not (out / mark).is_file():
        raise ModelError(f"{out} holds something other than a {what}; name another folder.")
    if written and out.is_dir():
        for path in sorted(out.rglob("*")):
            name = path.relative_to(out).as_posix()
            folder = path.is_dir() and not path.is_symlink()
            if not folder and not any(fnmatchcase(name, pattern) for pattern in written):
                raise ModelError(f"{out} holds {name}, which is not of a {what}; move it, or name another folder.")


def sweep(folder: Path, pattern: str = ".*.tmp") -> None:
    """Delete what killed calls of `replacing` and `building` left in a folder; what a living one holds stays."""
    for path in folder.glob(pattern):
        try:
            mode = path.lstat().st_mode
            held = os.open(path, (os.O_RDONLY if stat.S_ISDIR(mode) else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # gone by now, a link, or another user's
            continue
        try:
            if stat.S_ISDIR(mode) and _lock(held, wait=False):
                shutil.rmtree(path, ignore_errors=True)
            elif stat.S_ISREG(mode) and _lock(held, wait=False):
                path.unlink(missing_ok=True)
        finally:
            os.close(held)


@contextmanager
def alone(file: Path, busy: GradeError) -> Iterator[None]:
    """Work that one process at a time may do; the right to it goes with the process, however it ends.

    Args:
        file: hidden and empty; there while the work lasts.
        busy: raised where another process works.

    Raises:
        GradeError: `busy`, or the same kind where the file cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(file, flags, 0o666)
        except OSError as error:
            raise type(busy)(
                f"{file} cannot be opened: {error.strerror}; fix its permissions, or delete it."
            ) from error
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            except OSError:
                pass  # a file system without locks
            if _same_file(descriptor, file):  # else its owner deleted it, and a third process may have made another
                opened.callback(file.unlink, missing_ok=True)
                yield
                return


def check_plain(file: Path, what: str, kind: type[GradeError]) -> None:
    """Refuse what would be read without end or without an answer: a pipe, a device, a folder.

    Raises:
        GradeError: of that kind; `file` is missing, or not a plain file. A link to one will do.
    """
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise kind(f"there is no {what} {file}; correct its name.") from None
    except OSError as error:
        raise kind(f"{what} {file} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(mode):
        raise kind(f"{what} {file} is not a plain file; name a file.")


def first_line(error: BaseException) -> str:
    """What an error says, without its details and without a full stop; its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(". ") if text else type(error).__name__


def first_problem(error: ValidationError) -> str:
    """The first thing that a pydantic model refused: `field: what is wrong with it`."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    key = ".".join(str(part) for part in first["loc"])
    return f"{key}: {message}" if key else message


def _claimed(temporary: Path) -> BinaryIO:
    """Open an empty file that this process alone writes, under a name that others may want as well."""
    while True:
        descriptor = _opened(temporary)
        if descriptor is None:
            temporary.unlink(missing_ok=True)  # a link or a pipe: never written through
            continue
        stream = os.fdopen(descriptor, "wb")
        try:
            _lock(descriptor, wait=True)
            ours = _same_file(descriptor, temporary)  # else the writer that was waited for renamed or deleted it
            if ours:
                stream.truncate(0)
        except BaseException:
            stream.close()
            raise
        if ours:
            return stream
        stream.close()


def _opened(temporary: Path) -> int | None:
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError:
        if temporary.is_symlink() or (temporary.exists() and not temporary.is_file() and not temporary.is_dir()):
            return None
        raise
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    return None


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int, wait: bool) -> bool:
    """Lock an open file or folder for this process; False where another has it.

    A file system without locks (some network ones) counts as locked when waiting, and as another's when not.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return wait
    return True
