"""Whatever was altered in a checkpoint or in weights is found; nothing in them runs, hangs or unpacks."""

from __future__ import annotations

import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from toolkit.errors import RunError
from toolkit.training.network.checkpoint import (
    read_checkpoint,
    read_foreign,
    read_weights,
    write_checkpoint,
    write_weights,
)

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7])}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {"checkpoint": tmp_path / "last.pt", "weights": tmp_path / "best.safetensors"}
    write_checkpoint(found["checkpoint"], {"network": TENSORS, "history": [{"epoch": 1}]})
    write_weights(found["weights"], TENSORS)
    return found


READ: dict[str, Callable[[Path], object]] = {"checkpoint": read_checkpoint, "weights": read_weights}


def test_what_was_written_comes_back(files: dict[str, Path]) -> None:
    content = read_checkpoint(files["checkpoint"])
    assert content["history"] == [{"epoch": 1}]
    for found in (content["network"], read_weights(files["weights"])):
        assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
        assert found.keys() == TENSORS.keys()


@pytest.mark.parametrize("kind", READ)
def test_every_flipped_bit_is_found(kind: str, files: dict[str, Path]) -> None:
    whole = files[kind].read_bytes()
    for place in range(0, len(whole), 1 if kind == "weights" else 7):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        files[kind].write_bytes(altered)
        with pytest.raises(RunError, match=rf"{files[kind].name} cannot be"):
            READ[kind](files[kind])


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("change", [lambda x: x[:-1], lambda x: x[: len(x) // 2], lambda x: b"", lambda x: x + b"\n"])
def test_a_cut_or_longer_file_is_found(kind: str, change: Callable[[bytes], bytes], files: dict[str, Path]) -> None:
    files[kind].write_bytes(change(files[kind].read_bytes()))
    with pytest.raises(RunError, match="cannot be"):
        READ[kind](files[kind])


def test_weights_of_earlier_versions_have_no_checksum(files: dict[str, Path]) -> None:
    files["weights"].write_bytes(save(TENSORS))
    assert torch.equal(read_weights(files["weights"])["a"], TENSORS["a"])


@pytest.mark.parametrize("read", [read_checkpoint, read_weights, lambda file: read_foreign(file, "pretrained weights")])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "missing"])
def test_what_is_not_a_plain_file_is_named(read: Callable[[Path], object], kind: str, tmp_path: Path) -> None:
    file = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    with pytest.raises(RunError, match="there is no .* x|not a plain file" if kind != "missing" else "there is no"):
        read(file)


def test_an_archive_that_unpacks_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as part:
        for _ in range(200):
            part.write(bytes(2**20))
    assert file.stat().st_size < 2**20
    with pytest.raises(RunError, match="compressed, which torch does not do"):
        read_foreign(file, "pretrained weights")


def test_nothing_in_a_file_runs(tmp_path: Path) -> None:
    torch.save({"a": Path("/")}, tmp_path / "x.pth")  # a class that weights_only refuses
    with pytest.raises(RunError, match="cannot be read"):
        read_foreign(tmp_path / "x.pth", "pretrained weights")


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_full_disk_leaves_the_checkpoint_before(size: int, files: dict[str, Path]) -> None:
    before = {kind: file.read_bytes() for kind, file in files.items()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(RunError, match=r"last\.pt cannot be written: File too large; free some disk space"):
            write_checkpoint(files["checkpoint"], {"network": {"x": torch.zeros(5000)}})
        with pytest.raises(RunError, match=r"best\.safetensors cannot be written: File too large"):
            write_weights(files["weights"], {"x": torch.zeros(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {kind: file.read_bytes() for kind, file in files.items()} == before
    assert len(list(files["weights"].parent.iterdir())) == 2
