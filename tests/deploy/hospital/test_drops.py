"""A watched folder: what cannot be taken is said once and holds up nothing else."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.hospital.queue import Queue, study_key
from deploy.hospital.service import drops
from deploy.hospital.service.drops import Drops
from tests.deploy.hospital.tiny import images_of, tiny_study, write_study
from tests.deploy.hospital.ward import ward_settings

QUIET = 0.02
MOVED = "something in the watched folder was read and cannot be moved to taken/: Permission denied;"


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "hospital")


@pytest.fixture
def watch(tmp_path: Path) -> Path:
    return tmp_path / "watch"


@pytest.fixture
def turns(watch: Path, queue: Queue) -> Callable[[int], list[str]]:
    """Looks at the folder so many times; what was said."""
    taken = Drops(watch, queue, ward_settings(queue.folder, quiet=QUIET), labels=True)

    def look(count: int) -> list[str]:
        said: list[str] = []
        for _ in range(count):
            taken.take(said.append)
            time.sleep(2 * QUIET)
        return said

    return look


def key_of(number: int) -> str:
    return study_key(str(images_of(tiny_study(number))[0].StudyInstanceUID))


def images_in(queue: Queue, number: int) -> int:
    return len(list((queue.path("incoming", key_of(number)) / "images").glob("*.dcm")))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_may_not_be_moved_is_read_once_and_the_others_are_taken(
    watch: Path, queue: Queue, turns: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of another user: its images can be read, and it cannot be renamed."""

    def rename(path: Path, target: Path) -> None:
        if path == watch / "a":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path), None, str(target))
        move(path, target)

    move = Path.rename
    for name, number in (("a", 1), ("b", 2)):
        write_study(tiny_study(number), watch / name)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        (said,) = turns(4)
        assert said.startswith(MOVED)
        assert names(watch / "taken") == ["b"]
        assert images_in(queue, 1) == images_in(queue, 2) == 8
        queue.discard("incoming", key_of(1))
        assert turns(2) == []
        assert images_in(queue, 1) == 0  # it is not read again
    assert turns(2) == []
    assert names(watch / "taken") == ["a", "b"]


def test_a_link_that_leads_nowhere(watch: Path, queue: Queue, turns: Callable[[int], list[str]]) -> None:
    write_study(tiny_study(1), watch / "a")
    (watch / "a" / "readme").symlink_to("/nowhere/readme")
    (watch / "b").symlink_to("/nowhere/b")
    assert turns(4) == ["something in the watched folder holds no MR image; it is in rejected/ now"]
    assert (names(watch / "taken"), names(watch / "rejected")) == (["a"], ["b"])
    assert images_in(queue, 1) == 8


def test_half_a_study_is_not_left_to_be_graded(
    watch: Path, queue: Queue, turns: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after its fifth image; another drop is said to hold no image meanwhile."""
    count = 0

    def full(folder: Path, instance: str, content: bytes) -> Path:
        nonlocal count
        count += 1
        if count > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        return put_image(folder, instance, content)

    put_image = drops.put_image
    write_study(tiny_study(1), watch / "a")
    (watch / "letter.txt").write_text("no images")
    with monkeypatch.context() as patch:
        patch.setattr(drops, "put_image", full)
        assert turns(4) == [
            "something in the watched folder cannot be taken: No space left on device; it is tried again",
            "something in the watched folder holds no MR image; it is in rejected/ now",
        ]
    assert queue.keys("incoming") == []
    assert turns(2) == []
    assert images_in(queue, 1) == 8
    assert names(watch / "taken") == ["a"]


def test_a_name_that_is_no_text(watch: Path, queue: Queue, turns: Callable[[int], list[str]]) -> None:
    """A name in Latin-1, as another system may write it."""
    write_study(tiny_study(1), watch / os.fsdecode(b"M\xfcller"))
    assert turns(2) == []
    assert queue.ticket("incoming", key_of(1)).drop == "M\\xfcller"
