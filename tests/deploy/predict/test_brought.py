"""What a patient folder says of how it was brought in is that patient's alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.predict.brought import RECORD, brought_in_notes
from toolkit.errors import PatientRefused

MAKERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "deep": (lambda file: file.write_text("[" * 100_000), "cannot be read: it is nested too deep"),
    "pipe": (os.mkfifo, "cannot be read: it is not a plain file"),
    "device": (lambda file: file.symlink_to("/dev/zero"), "cannot be read: it is not a plain file"),
    "large": (lambda file: file.write_bytes(bytes(2**25)), "cannot be read: it has more than"),
    "no text": (lambda file: file.write_bytes(b"\xff{}"), "cannot be read"),
    "number": (lambda file: file.write_text('{"notes": [], "refused": 1}'), "not of this version"),
    "nested note": (lambda file: file.write_text('{"notes": [[]]}'), "not of this version"),
    "refused": (lambda file: file.write_text('{"notes": [], "refused": "t1 is missing"}'), "t1 is missing"),
}


def test_notes_are_read(tmp_path: Path) -> None:
    assert brought_in_notes(tmp_path) == ()
    (tmp_path / RECORD).write_text('{"notes": ["thick slices"]}')
    assert brought_in_notes(tmp_path) == ("thick slices",)


@pytest.mark.parametrize("name", MAKERS)
def test_what_cannot_be_read_refuses_the_patient(tmp_path: Path, name: str) -> None:
    make, reason = MAKERS[name]
    make(tmp_path / RECORD)
    with pytest.raises(PatientRefused, match=reason):
        brought_in_notes(tmp_path)
