"""A watched folder: what cannot be taken is said once and holds up nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.hospital.queue import Queue, study_key
from deploy.hospital.service.drops import Drops
from tests.deploy.hospital.tiny import images_of, tiny_study, write_study
from tests.deploy.hospital.ward import ward_settings

QUIET = 0.02


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


def test_a_link_that_leads_nowhere(watch: Path, queue: Queue, turns: Callable[[int], list[str]]) -> None:
    write_study(tiny_study(1), watch / "a")
    (watch / "a" / "readme").symlink_to("/nowhere/readme")
    (watch / "b").symlink_to("/nowhere/b")
    assert turns(4) == ["something in the watched folder holds no MR image; it is in rejected/ now"]
    assert (names(watch / "taken"), names(watch / "rejected")) == (["a"], ["b"])
    assert images_in(queue, 1) == 8
