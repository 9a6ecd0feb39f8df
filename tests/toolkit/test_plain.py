"""What someone else may have made is read within limits, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.plain import open_plain, parse_json, read_bytes, read_json

DEEP = b"[" * 100_000


def test_a_plain_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "file.json", tmp_path / "link.json"
    file.write_bytes(b'{"notes": ["one"]}')
    link.symlink_to(file)
    assert read_json(link) == {"notes": ["one"]}
    assert read_bytes(file, most=18) == b'{"notes": ["one"]}'


def test_no_more_is_read_than_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bytes(file, most=4)


def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path: Path) -> None:
    pipe, device = tmp_path / "pipe", tmp_path / "device"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for place in (pipe, device, tmp_path):
        with pytest.raises(OSError, match="not a plain file"):
            open_plain(place)
    with pytest.raises(FileNotFoundError):
        open_plain(tmp_path / "missing")


def test_what_is_nested_too_deep_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(DEEP)
    with pytest.raises(ValueError, match="Expecting value"):
        parse_json(b"[")
