"""An engine's two files: `NAME.plan` and its record `NAME.json`, which is written last and makes the plan count.

An engine is machine code: use only those that a machine of yours has built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from deploy.model.manifest import Sha256
from deploy.model.untrusted import read_plain
from deploy.tensorrt.builder import Proof
from deploy.tensorrt.flavours import Flavour
from toolkit.errors import ModelError
from toolkit.files import first_problem, write_file
from toolkit.frozen import Frozen

NOT_RUN = "not run (no GPU)"
KEY_DIGITS = 12
_MOST_RECORD = 2**20  # bytes


class EngineRecord(Frozen, strict=True):
    """What an engine is; stored next to it as JSON.

    Attributes:
        format: version of the record.
        created: UTC, ISO 8601.
        onnx: SHA-256 of the graph that it was built from.
        plan: SHA-256 of the engine.
        flavour: `tensorrt` or `rtx`.
        version: of the library; no other runs it.
        gpu: the card that it was built on and for; None: any of the compute capabilities.
        compute_capabilities: such as `8.9`.
        precision: of the backbone.
        batches: the profile's least, best and largest.
        workspace_gb: GiB that the build might take; None: all.
        opt_level: effort of the build; None: the library's default.
        convolutions: convolution layers.
        half: those of them in half precision.
        proof: where `half` was read.
        seconds: that the build took.
        parity: with ONNX Runtime in fp32 on the card, or that it was not run.
        seal: SHA-256 of all the above, so that an edited record is seen.
    """

    format: Literal[1] = 1
    created: str
    onnx: Sha256
    plan: Sha256
    flavour: Flavour
    version: str
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    precision: Literal["fp16"] = "fp16"
    batches: tuple[int, int, int]
    workspace_gb: float | None
    opt_level: int | None
    convolutions: int = Field(ge=0)
    half: int = Field(ge=0)
    proof: Proof
    seconds: float
    parity: str = NOT_RUN
    seal: str = ""

    @property
    def half_share(self) -> float:
        """Of the convolution layers, 0 to 1."""
        return self.half / self.convolutions if self.convolutions else 0.0

    @property
    def name(self) -> str:
        """Of its files: readable, and with a key over all that the engine was asked to be."""
        asked = self.model_dump(
            mode="json",
            include={"onnx", "flavour", "version", "gpu", "compute_capabilities", "precision", "batches"}
            | {"workspace_gb", "opt_level"},
        )
        cards = "-".join(f"sm{capability.replace('.', '')}" for capability in self.compute_capabilities)
        return f"{self.flavour}-{self.version}-{cards}-{digest(asked)[:KEY_DIGITS]}"

    def sealed(self) -> EngineRecord:
        """The same with its right seal."""
        return self.model_copy(update={"seal": digest(self.model_dump(mode="json", exclude={"seal"}))})


@dataclass(frozen=True)
class Engine:
    """An engine that was found whole, or built.

    Attributes:
        folder: where it is.
        record: see `EngineRecord`.
        plan: the bytes whose hash the record tells.
        built: now, and not found.
        note: why it was built though another was there; else empty.
    """

    folder: Path
    record: EngineRecord
    plan: bytes
    built: bool
    note: str = ""

    @property
    def path(self) -> Path:
        """The plan's file."""
        return self.folder / f"{self.record.name}.plan"


def engine_in(folder: Path, engine: Engine) -> Engine:
    """The same engine where it is now; its record is read again, since a comparison on the GPU may have come to it.

    Raises:
        ModelError: the record was altered.
    """
    return replace(engine, folder=folder, record=read_record(folder / f"{engine.record.name}.json"))


def store_engine(engine: Engine, folder: Path) -> None:
    """Write an engine to a folder, whole or not at all; one of its name is replaced.

    Raises:
        ModelError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"engine {engine.path} cannot be written: {error.strerror or error}; free some disk space."
        ) from error
    write_file(folder / f"{engine.record.name}.plan", engine.plan, ModelError)
    write_file(folder / f"{engine.record.name}.json", engine.record.model_dump_json(indent=2) + "\n", ModelError)


def read_record(path: Path) -> EngineRecord:
    """A record, if it is whole and unaltered.

    Raises:
        ModelError: it is not.
    """
    try:
        record = EngineRecord.model_validate_json(read_plain(path, _MOST_RECORD))
    except ValidationError as error:
        raise ModelError(f"{path} is not an engine's record: {first_problem(error)}.") from None
    if record.seal != record.sealed().seal or path.stem != record.name:
        raise ModelError(f"{path} was altered after the build.")
    return record


def records(folder: Path) -> Iterator[tuple[Path, EngineRecord | ModelError]]:
    """Each record of a folder of engines, by name, or what is wrong with it."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield path, read_record(path)
        except ModelError as error:
            yield path, error


def read_plan(path: Path, record: EngineRecord) -> bytes | None:
    """The plan, if it is the one of the record."""
    try:
        plan = read_plain(path)
    except ModelError:
        return None
    return plan if hashlib.sha256(plan).hexdigest() == record.plan else None


def digest(value: object) -> str:
    """SHA-256 of a value's JSON, hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
