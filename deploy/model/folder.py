"""The model folder: manifest, hashes, open and verify. A file is handed out only after its hash was found right."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import ValidationError

from deploy.model.graph_check import check_graph
from deploy.model.manifest import Manifest, ModelSpec
from deploy.model.untrusted import parse_json, read_plain
from toolkit.errors import ModelError
from toolkit.files import first_problem, write_file
from toolkit.machine import versions

FORMAT = 1
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"  # of the manifest, which holds all other hashes; `sha256sum -c` reads it
SIGNATURE = "manifest.sig"  # by `grade sign`
WEIGHTS = "weights.safetensors"
SELFTEST = "selftest.npz"
CARD = "model_card.md"
FAMILIARITY = "familiarity.npz"
BRAIN = "brain.onnx"  # by `grade export --brain`
ENGINES = "engines"  # made on the machine that predicts, each with a record of its own; never listed in the manifest

Precision = Literal["fp32", "fp16"]
ONNX: dict[Precision, str] = {"fp32": "model.onnx", "fp16": "model_fp16.onnx"}
WRITTEN = {  # patterns of every file that we write into a model, so that no other is replaced with it
    MANIFEST, SEAL, SIGNATURE, WEIGHTS, SELFTEST, CARD, FAMILIARITY, BRAIN, *ONNX.values(),
    *(f"{ENGINES}/{name}" for name in ("*.plan", "*.json", "*.timings", "*.jit", ".lock")),
}  # fmt: skip
_MOST_MANIFEST = 16 * 2**20  # bytes
_MOST_FILES = 10_000
_PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".bin"}  # opening one runs the code in it


@dataclass(frozen=True)
class Draft:
    """A folder that a runtime can open: a model, or one that export has not finished.

    Attributes:
        folder: where it is.
        manifest: what it says of itself.
        fingerprint: SHA-256 of its manifest, which holds the SHA-256 of every other file.
    """

    folder: Path
    manifest: ModelSpec
    fingerprint: str

    @property
    def short(self) -> str:
        """The fingerprint's first 12 digits, for people."""
        return self.fingerprint[:12]

    def onnx(self, precision: Precision) -> bytes:
        """The graph of a precision: as exported, and nothing that no export writes.

        Raises:
            ModelError: as `read` and `check_graph`.
        """
        content = self.read(ONNX[precision])
        check_graph(content, self.manifest, str(self.folder / ONNX[precision]))
        return content

    def read(self, name: str) -> bytes:
        """The content of a file. These bytes were checked: load these, do not read the file again.

        Raises:
            ModelError: the manifest does not list it, it is gone, no plain file, or its content is not what was
                exported.
        """
        path = self.folder / name
        wanted = self.manifest.files.get(name)
        if wanted is None:
            raise ModelError(f"model {self.folder} has no {name}; export it again.")
        content = read_plain(path)
        if hashlib.sha256(content).hexdigest() != wanted:
            raise ModelError(f"{path} was altered after the export: its SHA-256 is not the manifest's; export again.")
        return content

    def verify(self) -> None:
        """Check every file, not only those that a runtime asks for.

        Raises:
            ModelError: as `read`.
        """
        for name in self.manifest.files:  # one after the other, so that one at a time is in memory
            self.read(name)


@dataclass(frozen=True)
class Model(Draft):
    """An opened model folder; see `Draft`."""

    manifest: Manifest

    @property
    def optional(self) -> tuple[str, ...]:
        """Modalities of which a patient may lack one."""
        return tuple(self.manifest.partial)


def open_model(folder: Path) -> Model:
    """Open a model folder.

    Hashes are checked when a file is read (`Model.read`), or all at once by `Model.verify`: prediction on
    ONNX Runtime then reads one graph of 185 MB, not three files of 460 MB.

    Args:
        folder: as `grade export` writes it.

    Raises:
        ModelError: no such folder, no readable manifest, another format version, a file is missing, a pickle is there.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no model {folder}; `grade export` makes one from a run.")
    text, manifest = _read_manifest(folder / MANIFEST)
    for name in manifest.files:
        if not (folder / name).exists():
            raise ModelError(f"model {folder} is incomplete: {name} is missing; copy or export it again.")
    for path in islice(chain(folder.iterdir(), (folder / ENGINES).glob("*")), _MOST_FILES):
        if path.suffix.lower() in _PICKLES:
            raise ModelError(f"{path} may be a pickle, which can run code when opened; a model holds none, delete it.")
    return Model(folder, manifest, hashlib.sha256(text).hexdigest())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` and its seal, each whole or not at all.

    Args:
        folder: the model.
        manifest: `file_hashes` gives its `files`.
    """
    text = (manifest.model_dump_json(indent=2) + "\n").encode()
    for name, content in ((MANIFEST, text), (SEAL, _seal(text))):
        write_file(folder / name, content, ModelError)


def file_hashes(folder: Path, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Name -> SHA-256 of every file of a model but its manifest, seal and signature, sorted by name.

    Args:
        folder: the model.
        known: hashes that need not be taken again.
    """
    names = sorted({path.name for path in folder.iterdir() if path.is_file()} - {MANIFEST, SEAL, SIGNATURE})
    return {name: known.get(name) or _sha256(folder / name) for name in names}


def library_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of those distributions that are installed."""
    return {"python": platform.python_version()} | versions(names)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}; copy or export the model again.") from error


def _seal(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _check_seal(path: Path, manifest: bytes) -> None:
    if read_plain(path, _MOST_MANIFEST) != _seal(manifest):
        raise ModelError(f"{path.with_name(MANIFEST)} or {SEAL} was altered after the export; export again.")


def _read_manifest(path: Path) -> tuple[bytes, Manifest]:
    if not path.exists():
        raise ModelError(f"{path.parent} is no model: it has no {MANIFEST}; name a folder of `grade export`.")
    text = read_plain(path, _MOST_MANIFEST)
    content = parse_json(text, str(path))
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ModelError(f"{path} has format {found!r}; this version reads format {FORMAT}: export the run again.")
    _check_seal(path.with_name(SEAL), text)
    try:
        return text, Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(f"{path} cannot be used: {first_problem(error)}; export the run again.") from None
