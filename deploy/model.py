"""The model folder: manifest, hashes, open and verify. A file is handed out only after its hash was found right."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from toolkit.config import Grid
from toolkit.data.patients import CLASSES, MODALITIES
from toolkit.data.scan import PREPROCESSING
from toolkit.errors import ModelError
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.conformal import Conformal
from toolkit.evaluation.familiarity import Familiarity

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
SELFTEST = "selftest.npz"
CARD = "model_card.md"
FAMILIARITY = "familiarity.npz"
ENGINES = "engines"  # made on the machine that predicts, each with a record of its own; never listed in the manifest

Precision = Literal["fp32", "fp16"]
ONNX: dict[Precision, str] = {"fp32": "model.onnx", "fp16": "model_fp16.onnx"}
_PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".bin"}  # opening one runs the code in it

FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # directly in the folder: no path leads out of it
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkRecord(_Part):
    """What the torch runtime needs to build the network; the others run a finished graph."""

    depth: Literal[10, 18, 34, 50]
    stem_stride: Literal[1, 2]
    cosine_head: bool


class OutputShapes(_Part):
    """Of one patient's outputs beside the two logits."""

    features: int = Field(gt=0)
    evidence: tuple[int, int, int]


class TrainingSummary(_Part):
    """How the weights came about.

    Attributes:
        strategy: preset.
        epochs: finished.
        best_epoch: whose weights these are, counted from 1; None only for a run without history.
        training: patients per class.
        validation: patients per class.
        auc: on the validation patients: value and 95 % limits, None where undefined.
    """

    strategy: str
    epochs: int
    best_epoch: int | None
    training: dict[str, int]
    validation: dict[str, int]
    auc: tuple[float | None, float | None, float | None]


class Comparison(_Part):
    """One runtime against torch in float32.

    Attributes:
        runtime: name, precision and device.
        limit: largest difference of the probability that passes.
        difference: largest difference of the probability seen on patients.
        logit_difference: largest difference of a logit seen on patients.
        map_difference: largest difference of features or evidence seen on patients, as a share of their largest value.
        flips: patients decided otherwise; only where the probability is nearer to the threshold than the limit.
        extremes_difference: largest difference of the probability seen on extreme scans.
        overflows: extreme scans without a finite answer in fp16; prediction answers such a scan in fp32.
    """

    runtime: str
    limit: float
    difference: float
    logit_difference: float
    map_difference: float
    flips: int
    extremes_difference: float
    overflows: tuple[str, ...] = ()


class ParityReport(_Part):
    """What `deploy.parity` compared: patients of so many in validation, extreme scans, batch sizes."""

    patients: int
    validation: int
    extremes: tuple[str, ...]
    batches: tuple[int, ...]
    comparisons: tuple[Comparison, ...]


def _known(name: str, known: tuple[str, ...]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def check(value: tuple[str, ...]) -> tuple[str, ...]:
        if value != known:
            raise ValueError(f"this version knows the {name} {', '.join(known)} only, in this order")
        return value

    return check


def _same_preprocessing(value: int) -> int:
    if value != PREPROCESSING:
        raise ValueError(f"this version preprocesses by recipe {PREPROCESSING}; the model was trained with another")
    return value


class Manifest(_Part):
    """All that is known about a model.

    Attributes:
        format: version of the folder's layout.
        created: UTC, ISO 8601.
        files: name -> SHA-256, every other file that export wrote.
        modalities: channel order.
        classes: index order.
        grid: of a scan.
        preprocessing: version of the recipe, `toolkit.data.scan.PREPROCESSING`.
        max_batch: largest batch that a runtime takes.
        network: see `NetworkRecord`.
        outputs: see `OutputShapes`.
        calibration: from logits to probability, and the threshold.
        conformal: from probability to the grades that are possible; None only while export begins.
        out_of_distribution: what is familiar, beside `familiarity.npz`; None only while export begins.
        training: see `TrainingSummary`.
        parity: the gate's record; None only while the gate runs.
        versions: of the libraries that exported it.
    """

    format: Literal[1]
    created: str
    files: dict[FileName, Sha256]
    modalities: Annotated[tuple[str, ...], AfterValidator(_known("modalities", MODALITIES))]
    classes: Annotated[tuple[str, ...], AfterValidator(_known("classes", CLASSES))]
    grid: Grid
    preprocessing: Annotated[int, AfterValidator(_same_preprocessing)]
    max_batch: int = Field(ge=1)
    network: NetworkRecord
    outputs: OutputShapes
    calibration: Calibration
    conformal: Conformal | None = None
    out_of_distribution: Familiarity | None = None
    training: TrainingSummary
    parity: ParityReport | None
    versions: dict[str, str]


@dataclass(frozen=True)
class Model:
    """An opened model folder.

    Attributes:
        folder: where it is.
        manifest: what it says of itself.
        fingerprint: SHA-256 of its manifest, which holds the SHA-256 of every other file.
    """

    folder: Path
    manifest: Manifest
    fingerprint: str
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def short(self) -> str:
        """The fingerprint's first 12 digits, for people."""
        return self.fingerprint[:12]

    def onnx(self, precision: Precision) -> Path:
        """The graph of a precision, its hash checked.

        Raises:
            ModelError: as `file`.
        """
        return self.file(ONNX[precision])

    def file(self, name: str) -> Path:
        """A file of the model; at the first asking its hash is checked.

        Raises:
            ModelError: the manifest does not list it, it is gone, or its content is not what was exported.
        """
        path = self.folder / name
        if name in self._checked:
            return path
        wanted = self.manifest.files.get(name)
        if wanted is None:
            raise ModelError(f"model {self.folder} has no {name}; export it again.")
        if _sha256(path) != wanted:
            raise ModelError(f"{path} was altered after the export: its SHA-256 is not the manifest's; export again.")
        self._checked.add(name)
        return path

    def verify(self) -> None:
        """Check every file, not only those that a runtime asks for.

        Raises:
            ModelError: as `file`.
        """
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.file, self.manifest.files))


def open_model(folder: Path) -> Model:
    """Open a model folder.

    Hashes are checked when a file is first asked for (`Model.file`), or all at once by `Model.verify`: prediction on
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
        if not (folder / name).is_file():
            raise ModelError(f"model {folder} is incomplete: {name} is missing; copy or export it again.")
    for path in folder.rglob("*"):
        if path.suffix.lower() in _PICKLES:
            raise ModelError(f"{path} may be a pickle, which can run code when opened; a model holds none, delete it.")
    return Model(folder, manifest, hashlib.sha256(text).hexdigest())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all.

    Args:
        folder: the model.
        manifest: `file_hashes` gives its `files`.
    """
    temporary = folder / f".{MANIFEST}.tmp"
    temporary.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / MANIFEST)  # noqa: PTH105 - the word says that it is atomic


def file_hashes(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file of a model but its manifest, sorted by name."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    return {name: _sha256(folder / name) for name in names}


def library_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of those distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}; copy or export the model again.") from error


def _read_manifest(path: Path) -> tuple[bytes, Manifest]:
    try:
        text = path.read_bytes()
        content: Any = json.loads(text)
    except FileNotFoundError:
        raise ModelError(f"{path.parent} is no model: it has no {MANIFEST}; name a folder of `grade export`.") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ModelError(f"{path} is no valid JSON: {error}; copy or export the model again.") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ModelError(f"{path} has format {found!r}; this version reads format {FORMAT}: export the run again.")
    try:
        return text, Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ModelError(f"{path}: {key} cannot be used: {message}; export the run again.") from None
