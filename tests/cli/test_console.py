"""What is said where it cannot be written: a log, or standard error, on a full disk."""

import io
import sys

import pytest

from cli import console


class Disk(io.StringIO):
    """A file on a disk that may be full."""

    full = True

    def flush(self):
        if self.full:
            raise OSError(28, "No space left on device")


def test_a_log_that_fills_up_ends_nothing_and_is_told_once(monkeypatch, capsys):
    log = Disk()
    monkeypatch.setattr(console.volume, "log", log)
    console.say("first")
    console.note("second")
    told = capsys.readouterr().err
    assert told.count("the log lacks lines: No space left on device; free some disk space.") == 1
    assert "first" in told
    assert "second" in told
    log.full = False
    console.say("third")
    assert log.getvalue().endswith("step: third\n")
    log.full = True
    console.say("fourth")
    assert "the log lacks lines" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        console.fail("fifth")
    assert end.value.code == 1
    assert "error: fifth" in capsys.readouterr().err


def test_standard_error_on_a_full_disk_ends_nothing(monkeypatch):
    disk = Disk()
    monkeypatch.setattr(sys, "stderr", disk)
    console.say("first")
    with pytest.raises(SystemExit) as end:
        console.fail("second", 130)
    assert end.value.code == 130
    written = disk.tell()
    disk.full = False
    console.say("third")
    assert disk.getvalue()[written:] == "third\n"  # and nothing of what was lost before


def test_a_log_that_takes_no_first_line(grade, tmp_path):
    code, out, err = grade("--log-file", "/dev/full", "check", tmp_path)
    assert (code, out) == (1, "")
    assert " ".join(err.split()) == (
        "error: the log /dev/full cannot be written: No space left on device;"
        " free some disk space, or name another file."
    )
