"""Only what a command wrote is deleted."""

import os
import shutil

import pytest

from toolkit.errors import GradeError
from toolkit.owned import OwnedFolder, check_shared


def written(folder):
    owned = OwnedFolder(folder, ".mark", "demo")
    owned.begin()
    with owned.writing("a.txt"):
        (folder / "a.txt").write_text("1")
    with owned.writing("deep", "absent"):
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "b").write_bytes(bytes(10))
        (folder / "deep" / "link").symlink_to("er")
    return owned


def content(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_what_was_written_is_replaced(tmp_path):
    owned = written(tmp_path / "demo")
    owned.begin()
    assert content(tmp_path / "demo") == [".mark"]
    written(tmp_path / "demo")
    shutil.copytree(tmp_path / "demo", tmp_path / "copy", symlinks=True)
    OwnedFolder(tmp_path / "copy", ".mark", "demo").begin()
    assert content(tmp_path / "copy") == [".mark"]


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("notes.txt", lambda file: file.write_text("mine")),
        ("deep/er/mine", lambda file: file.write_text("mine")),
        ("deep/new/mine", lambda file: (file.parent.mkdir(), file.write_text("mine"))),
        ("a.txt", lambda file: file.write_text("2")),
        ("deep/er/b", lambda file: file.write_bytes(bytes(11))),
        ("deep/link", lambda file: (file.unlink(), file.symlink_to("elsewhere"))),
        ("to home", lambda file: file.symlink_to("/")),
        ("pipe", os.mkfifo),
        (".hidden", lambda file: file.write_text("mine")),
    ],
)
def test_what_is_somebody_elses_stays(tmp_path, name, act):
    owned = written(tmp_path)
    act(tmp_path / name)
    before = content(tmp_path)
    with pytest.raises(GradeError, match=f"holds {name}, which is not of the last demo or was changed since"):
        owned.begin()
    assert content(tmp_path) == before


def test_a_step_that_was_interrupted_may_be_replaced(tmp_path):
    owned = written(tmp_path)
    with pytest.raises(KeyboardInterrupt), owned.writing("runs"):
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "half").touch()
        raise KeyboardInterrupt
    owned.begin()
    assert content(tmp_path) == [".mark"]


@pytest.mark.parametrize("mark", ["", "{", "[" * 100_000, '{"files": 3}', '{"writing": ["a", 1]}'])
def test_a_list_that_says_nothing_owns_nothing(tmp_path, mark):
    (tmp_path / ".mark").write_text(mark)
    (tmp_path / "a").touch()
    with pytest.raises(GradeError, match="holds a, which"):
        OwnedFolder(tmp_path, ".mark", "demo").begin()


def test_links_and_files_are_no_place(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(GradeError, match="is a link or a file"):
            OwnedFolder(tmp_path / name, ".mark", "demo").begin()


def test_shared_folders(tmp_path):
    def check():
        check_shared(tmp_path / "study", ["study.json"], ["runs"], "a study")

    check()
    (tmp_path / "study" / "runs").mkdir(parents=True)
    (tmp_path / "study" / ".hidden").touch()
    check()
    (tmp_path / "study" / "notes.txt").touch()
    with pytest.raises(GradeError, match=r"holds something other than a study, notes.txt for one; name another"):
        check()
    (tmp_path / "study" / "study.json").touch()
    check()
