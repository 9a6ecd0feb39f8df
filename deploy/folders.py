"""A folder that appears whole or not at all: built hidden beside its place, then put there."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import ModelError

_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h: paths are relative to the working folder


def check_place(out: Path, mark: str, what: str) -> None:
    """Refuse to replace what is something else.

    Args:
        out: where the folder will be put.
        mark: a file, relative to `out`, that tells an earlier one.
        what: such as `model`, for the sentence.

    Raises:
        ModelError: `out` is a link, a file, or a folder that holds other things.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ModelError(f"{out} is a link or a file; name another folder for the {what}.")
    if out.is_dir() and any(out.iterdir()) and not (out / mark).is_file():
        raise ModelError(f"{out} holds something other than a {what}; name another folder.")


@contextmanager
def building(out: Path, what: str) -> Iterator[Path]:
    """A hidden folder beside `out`, gone at the end whatever happens.

    Raises:
        ModelError: it cannot be written.
    """
    folder = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise ModelError(f"{what} {out} cannot be written: {error}; free some space or name another folder.") from error
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
