"""Files and folders appear whole or not at all, with the umask's modes, and nothing of a failed write stays."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from toolkit.errors import CohortError, GradeError, ModelError, RunError
from toolkit.files import building, first_line, first_problem, put, replacing, sweep, write_file
from toolkit.frozen import Frozen


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: to a writer a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_modes_follow_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "a", b"x")
        with building(tmp_path / "model", "model") as folder:
            write_file(folder / "b", "x")
            put(folder, tmp_path / "model")
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "model/b", "model")]
    assert modes == [0o666 & ~umask, 0o666 & ~umask, 0o777 & ~umask]


def test_text_is_utf_8_and_replaces(tmp_path: Path) -> None:
    for text in ("längst\r\n", "neu\n"):
        write_file(tmp_path / "a", text)
        assert (tmp_path / "a").read_bytes() == text.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("size", [0, 1, 4096, 70_000])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(size: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with at_most(size), pytest.raises(RunError, match=r"a cannot be written: File too large; free some disk space"):
        write_file(tmp_path / "a", b"x" * 100_000, RunError)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_of_the_block_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replacing(tmp_path / "a") as stream:
        stream.write(b"half")
        raise KeyError("x")
    assert not list(tmp_path.iterdir())


def test_no_folder_to_write_into(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="cannot be written: No such file"):
        write_file(tmp_path / "none" / "a", b"", CohortError)
    (tmp_path / "file").touch()
    with pytest.raises(GradeError, match="cannot be written: Not a directory"):
        write_file(tmp_path / "file" / "a", b"")


@pytest.mark.parametrize("kind", ["link", "pipe", "hard link", "leftover"])
def test_what_waits_under_the_hidden_name_is_never_written_through(kind: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    hidden = tmp_path / ".a.tmp"
    if kind == "link":
        hidden.symlink_to(precious)
    elif kind == "pipe":
        os.mkfifo(hidden)
    elif kind == "hard link":
        os.link(precious, hidden)
    else:
        hidden.write_bytes(b"what a killed writer left, longer than the next one")
    write_file(tmp_path / "a", b"new")
    assert precious.read_bytes() == b"mine"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not hidden.exists()


def test_two_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    """Each content is whole: no writer renames what another has half written."""
    contents = [bytes([number]) * 300_000 for number in range(4)]
    torn: list[bytes] = []

    def write(content: bytes) -> None:
        for _ in range(20):
            with replacing(tmp_path / "a") as stream:
                for first in range(0, len(content), 50_000):
                    stream.write(content[first : first + 50_000])
                    stream.flush()
            found = (tmp_path / "a").read_bytes()
            if found not in contents:
                torn.append(found)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


KILLED = """
import os, signal, sys
from pathlib import Path
from toolkit.files import building, replacing
place = Path(sys.argv[1])
with building(place / "model", "model") as folder, replacing(place / "a") as stream:
    (folder / "x").write_text("x")
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leftovers_of_killed_calls_are_cleaned(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
        left = sorted(path.name.split(".")[1] for path in tmp_path.iterdir())
        assert left == ["a", "model"]  # the second call cleaned up after the first
    with building(tmp_path / "model", "model"):
        assert len(list(tmp_path.glob(".model.*.tmp"))) == 1
    write_file(tmp_path / "keep.tmp", b"")
    with replacing(tmp_path / "b") as stream:  # being written: stays
        stream.write(b"b")
        sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "keep.tmp"]


def test_a_folder_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"model .* cannot be written"), building(tmp_path / "file" / "m", "model"):
        pass
    with pytest.raises(RunError, match="run"), building(tmp_path / "m", "run", RunError) as folder:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError(), "ValueError"),
        (ValueError("  \n "), "ValueError"),
        (ValueError("\nfirst.\nsecond"), "first"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError(2, "No such file or directory"), "[Errno 2] No such file or directory"),
    ],
)
def test_every_error_has_a_line(error: BaseException, line: str) -> None:
    assert first_line(error) == line


def test_the_first_problem_names_its_field() -> None:
    class Pair(Frozen):
        a: int
        b: tuple[int, int]

    with pytest.raises(ValidationError) as caught:
        Pair.model_validate({"a": 1, "b": (1, "x")})
    assert first_problem(caught.value).startswith("b.1: Input should be a valid integer")
    with pytest.raises(ValidationError) as caught:
        Pair.model_validate(3)
    assert first_problem(caught.value).startswith("Input should be a valid dictionary")
