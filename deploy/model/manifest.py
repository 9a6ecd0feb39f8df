"""What `manifest.json` may say: everything that is known about a model."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from deploy.model.origin import Adaptation, People
from deploy.model.partial import Partial
from toolkit.config import Architecture, Grid
from toolkit.data.patients import CLASSES, MODALITIES
from toolkit.data.scan import PREPROCESSING
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.conformal import Conformal
from toolkit.evaluation.familiarity import Familiarity
from toolkit.frozen import FrozenFinite

SYNTHETIC = "trained on phantoms: never for patients"
MOST_VOXELS = 2**24  # of a scan
FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # directly in the folder: no path leads out of it
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class NetworkRecord(FrozenFinite):
    """What the torch runtime needs to build the network; the others run a finished graph.

    `members` counts the networks of an ensemble; their logits and evidence are averaged, their features side by side.
    """

    arch: Architecture = "resnet"
    depth: Literal[10, 18, 34, 50]
    stem_stride: Literal[1, 2]
    cosine_head: bool
    norm: Literal["batch", "group"] = "batch"
    members: int = Field(1, ge=1, le=64)

    @property
    def title(self) -> str:
        """Of the architecture, such as `ResNet-50`."""
        titles = {"densenet121": "DenseNet-121", "seresnet50": "SE-ResNet-50", "efficientnet-b0": "EfficientNet-B0"}
        return titles.get(self.arch, f"ResNet-{self.depth}")

    @property
    def blocks(self) -> bool:
        """Whether the first convolution runs over blocks of voxels, in half precision on a GPU."""
        return self.stem_stride == 2 and self.arch != "efficientnet-b0"


class OutputShapes(FrozenFinite):
    """One patient's outputs, apart from the two logits."""

    features: int = Field(gt=0, le=2**20)
    evidence: tuple[PositiveInt, PositiveInt, PositiveInt]


class TrainingSummary(FrozenFinite):
    """How the weights came about.

    Attributes:
        strategy: preset.
        labels: where the grades come from, and which values were taken for which.
        site: AUC of a grader that knows only the site of these patients; None where no site is known.
        epochs: finished; the most of any fold.
        best_epoch: whose weights these are, counted from 1; None where folds have one each.
        training: patients per class.
        validation: patients per class.
        auc: on the validation patients: value and 95 % limits, None where undefined.
        synthetic: whether any of these patients was made by `grade phantom`.
    """

    strategy: str
    labels: str
    site: float | None
    epochs: int
    best_epoch: int | None
    training: dict[str, int]
    validation: dict[str, int]
    auc: tuple[float | None, float | None, float | None]
    synthetic: bool = False

    @property
    def origin(self) -> str:
        """Where the model comes from, in a sentence, if that must be said wherever it answers; else empty."""
        return f"The model was {SYNTHETIC}." if self.synthetic else ""


class Comparison(FrozenFinite):
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


class ParityReport(FrozenFinite):
    """What `deploy.parity` compared: patients of so many in validation, extreme scans, batch sizes."""

    patients: int
    validation: int
    extremes: tuple[str, ...]
    batches: tuple[int, ...]
    comparisons: tuple[Comparison, ...]


class BrainRecord(FrozenFinite):
    """Where the brain mask's network comes from.

    Attributes:
        file: in the model folder.
        source: package, version and file of the weights.
        weights: SHA-256 of that file.
        licence: that the package states.
        unknown: what is not known of the weights.
        differing: share of the mask's voxels that ONNX Runtime and torch decided differently at export.
    """

    file: FileName
    source: str
    weights: Sha256
    licence: str
    unknown: str
    differing: float


def _known(name: str, known: tuple[str, ...]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def check(value: tuple[str, ...]) -> tuple[str, ...]:
        if value != known:
            raise ValueError(f"this version knows the {name} {', '.join(known)} only, in this order")
        return value

    return check


def _sane_grid(value: Grid) -> Grid:
    if prod(value.shape) > MOST_VOXELS:
        raise ValueError(f"a scan of {prod(value.shape)} voxels is more than this version takes, {MOST_VOXELS}")
    return value


def _same_preprocessing(value: int) -> int:
    if value != PREPROCESSING:
        raise ValueError(f"this version preprocesses by recipe {PREPROCESSING}; the model was trained with another")
    return value


class ModelSpec(FrozenFinite):
    """What a runtime needs to know of a model.

    Attributes:
        format: version of the folder's layout.
        files: name -> SHA-256, every other file that export wrote.
        modalities: channel order.
        classes: index order.
        grid: of a scan.
        preprocessing: version of the recipe, `toolkit.data.scan.PREPROCESSING`.
        max_batch: largest batch that a runtime takes.
        network: see `NetworkRecord`.
        outputs: see `OutputShapes`.
        calibration: from logits to probability, and the threshold.
    """

    format: Literal[1]
    files: dict[FileName, Sha256]
    modalities: Annotated[tuple[str, ...], AfterValidator(_known("modalities", MODALITIES))]
    classes: Annotated[tuple[str, ...], AfterValidator(_known("classes", CLASSES))]
    grid: Annotated[Grid, AfterValidator(_sane_grid)]
    preprocessing: Annotated[int, AfterValidator(_same_preprocessing)]
    max_batch: int = Field(ge=1, le=256)
    network: NetworkRecord
    outputs: OutputShapes
    calibration: Calibration


class Manifest(ModelSpec):
    """All that is known about a finished model.

    Attributes:
        created: UTC, ISO 8601.
        conformal: from probability to the grades that are possible.
        out_of_distribution: what is familiar; `familiarity.npz` holds the rest.
        reference: grade -> the validation patients' P(HGG), rising, so that none can be told which it is.
        training: see `TrainingSummary`.
        parity: the gate's record.
        versions: of the libraries that exported it.
        space: that its patients were in; `grade` itself brings studies into `brats` only.
        brain: the brain mask's network, where the model has it.
        people: who it was trained and validated on; None in a model of an earlier version.
        baseline: `distance` and each image statistic of the validation patients, rising, for `grade monitor`.
        adaptation: how it was fitted to a site; None where it was not.
        partial: modality -> what counts for patients who lack it; empty: nobody may.
    """

    created: str
    conformal: Conformal
    out_of_distribution: Familiarity
    reference: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    training: TrainingSummary
    parity: ParityReport
    versions: dict[str, str]
    space: str = "brats"
    brain: BrainRecord | None = None
    people: People | None = None
    baseline: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    adaptation: Adaptation | None = None
    partial: dict[Literal["flair", "t1", "t1ce", "t2"], Partial] = Field(default_factory=dict)

    def lacking(self, missing: str) -> Manifest:
        """The manifest as it counts for patients who lack a modality; itself where none is missing.

        Args:
            missing: one of `partial`, or empty.
        """
        part = {str(name): part for name, part in self.partial.items()}.get(missing)
        if part is None:
            return self
        return self.model_copy(
            update={
                "calibration": part.calibration,
                "conformal": part.conformal,
                "out_of_distribution": part.familiarity,
                "reference": part.reference,
            }
        )
