"""Tensors on disk with a checksum: a flipped bit, a cut or an exchanged file is found when they are read."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from toolkit.errors import RunError
from toolkit.files import check_plain, first_line, replacing, write_file
from toolkit.plain import parse_json

_MARK = b"grade sha256 "  # ends a checkpoint, with the hexadecimal SHA-256 of all before it
_ALTERED = "it is damaged, its content does not have the checksum it was written with"
_TAIL = len(_MARK) + 64 + 1
_BROKEN = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError)


class _Hashing:
    """A stream that hashes what is written to it, and remembers why a write failed: torch does not say."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._digest = stream, hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            count = self._stream.write(content)
        except OSError as error:
            self.failure = error
            raise
        self._digest.update(content)
        return count

    def flush(self) -> None:
        self._stream.flush()

    def tail(self) -> bytes:
        return _MARK + self._digest.hexdigest().encode() + b"\n"


def write_checkpoint(file: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values whole or not at all, and wait until the disk has them.

    Raises:
        RunError: the file cannot be written.
    """
    with replacing(file, RunError, durable=True) as stream:
        hashing = _Hashing(stream)
        try:
            torch.save(content, cast(BinaryIO, hashing))  # it asks for no more than `write` and `flush`
        except RuntimeError as error:
            raise hashing.failure or OSError(first_line(error)) from error
        stream.write(hashing.tail())


def read_checkpoint(file: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU; nothing in it can run code.

    Raises:
        RunError: it is not a plain file, was cut or altered, or holds something else.
    """
    check_plain(file, "checkpoint", RunError)
    try:
        with file.open("rb") as stream:
            if not _whole(stream, file.stat().st_size):
                raise ValueError(_ALTERED)
            _check_archive(file)
            stream.seek(0)
            content = torch.load(stream, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise ValueError("it holds something other than a checkpoint")
    except _BROKEN as error:
        raise RunError(
            f"{file} cannot be read: {first_line(error)}; delete it to train this run from the first epoch."
        ) from error
    return content


def write_weights(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors with a checksum, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    write_file(file, save(tensors, {"sha256": _digest(save(tensors))}), RunError)


def read_weights(file: Path) -> dict[str, Tensor]:
    """What `write_weights` wrote; a file without any checksum, as earlier versions wrote it, will do.

    Raises:
        RunError: it is not a plain file, or was cut or altered.
    """
    check_plain(file, "file of weights", RunError)
    try:
        content = file.read_bytes()
        metadata = _header(content).get("__metadata__")
        if metadata is not None and metadata.get("sha256") != _digest(content):
            raise ValueError(_ALTERED)
        return load(content)
    except (*_BROKEN, SafetensorError, RecursionError) as error:
        raise RunError(f"{file} cannot be loaded: {first_line(error)}; train again.") from error


def read_foreign(file: Path, what: str) -> object:
    """What `torch.save` wrote elsewhere, on the CPU; nothing in it can run code.

    Args:
        file: to read.
        what: such as `file of pretrained weights`, for the sentence.

    Raises:
        RunError: it is not a plain file, or cannot be read.
    """
    check_plain(file, what, RunError)
    try:
        if zipfile.is_zipfile(file):
            _check_archive(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except (*_BROKEN, RecursionError) as error:
        raise RunError(f"{what} {file} cannot be read: {first_line(error)}; fetch the file again.") from error


def _whole(stream: BinaryIO, size: int) -> bool:
    digest, left = hashlib.sha256(), size - _TAIL
    while left > 0 and (part := stream.read(min(left, 2**24))):
        digest.update(part)
        left -= len(part)
    return stream.read() == _MARK + digest.hexdigest().encode() + b"\n"


def _check_archive(file: Path) -> None:
    """Refuse an archive that unpacks to more than it is: torch never packs."""
    try:
        with zipfile.ZipFile(file) as archive:
            packed = [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(first_line(error)) from error
    if packed:
        raise ValueError(f"its part {packed[0]} is compressed, which torch does not do")


def _header(content: bytes) -> dict[str, Any]:
    size = int.from_bytes(content[:8], "little")
    if size > len(content) - 8:
        raise ValueError("it is cut short")
    header = parse_json(content[8 : 8 + size])
    if not isinstance(header, dict):
        raise ValueError("its header is not a table")
    return header


def _digest(content: bytes) -> str:
    """SHA-256 of the names, types, shapes and values in a safetensors file, whatever else its header says."""
    header = {name: value for name, value in _header(content).items() if name != "__metadata__"}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(memoryview(content)[8 + int.from_bytes(content[:8], "little") :])
    return digest.hexdigest()
