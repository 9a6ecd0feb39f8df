"""The settings: one frozen tree, a class for each section of `grade.toml`, with its defaults and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from toolkit.config.hospital import HospitalSettings
from toolkit.config.life import CommissionSettings, MonitorSettings
from toolkit.config.values import Address, SettingPath
from toolkit.frozen import Frozen
from toolkit.machine import DEVICE

Strategy = Literal["stable", "ldam", "legacy"]
Architecture = Literal["resnet", "densenet121", "seresnet50", "efficientnet-b0"]
_FIVE_HALVINGS = ("densenet121", "efficientnet-b0")  # rounding down; the others round up
Readers = Literal["auto", "threads", "processes"]
_MOST = 1_000_000  # epochs, patients or batches: beyond any training, and within what a computer counts with
Device = Annotated[str, Field(pattern=f"^({DEVICE})$")]


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # TOML knows no tuples


def _text_to_table(value: Any) -> Any:
    return {"file": value} if isinstance(value, str | Path) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_list_to_tuple)]


class Branch(Frozen, strict=True):
    """A section: no unknown key, no value of another type."""


class Grid(Branch):
    """The fixed grid of a scan: RAS axes, isotropic."""

    spacing: float = Field(1.5, gt=0.1, le=20, allow_inf_nan=False, description="voxel edge, mm")
    shape: Annotated[tuple[int, int, int], BeforeValidator(_list_to_tuple)] = Field(
        (104, 128, 104), description="voxels along right, anterior, superior"
    )

    @field_validator("shape")
    @classmethod
    def _sane_shape(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if any(n < 16 or n > 512 for n in shape):
            raise ValueError("each axis needs 16 to 512 voxels")
        return shape


class LabelTable(Branch):
    """`[data.labels]`: a table of grades; columns that are not named are recognised by their headers."""

    file: SettingPath
    patient: str | None = Field(None, description="column of the patient's id")
    grade: str | None = Field(None, description="column of the grade")
    site: str | None = Field(None, description="column of the site")
    sheet: str | None = Field(None, description="sheet of a workbook; else the one that holds ids and grades")
    lgg: Words = Field(("LGG", "2", "II", "3", "III"), description="values that mean LGG; WHO grades as BraTS has them")
    hgg: Words = Field(("HGG", "GBM", "4", "IV"), description="values that mean HGG")


class DataSettings(Grid):
    """`[data]`: who is trained on, and the grid."""

    cohort: SettingPath | None = Field(None, description="folder of patients")
    labels: Annotated[LabelTable | None, BeforeValidator(_text_to_table)] = Field(
        None, description="table of grades; without it: HGG/ and LGG/ folders or a table in the cohort"
    )
    validation: float | SettingPath = Field(0.2, description="share of the patients, or a folder of patients")
    group: Literal["patient", "site"] = Field("patient", description="what is never split over training and validation")
    folds: int = Field(
        0, ge=0, le=_MOST, description="number of cross-validation folds, each trains a network; 0: one split"
    )
    repeats: int = Field(1, ge=1, le=_MOST, description="of the cross-validation, each with new folds")
    cache: SettingPath = Field(Path("cache"), description="preprocessed scans, kept between trainings")
    optional: Annotated[tuple[Literal["flair", "t1", "t1ce", "t2"], ...], BeforeValidator(_list_to_tuple)] = Field(
        (), description="modalities that a patient to be graded may lack, one at a time"
    )

    @field_validator("validation")
    @classmethod
    def _share_or_folder(cls, value: float | Path) -> float | Path:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("a share is between 0 and 1")
        return value

    @field_validator("folds")
    @classmethod
    def _none_or_several(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("one fold leaves no patient to train on; take 2 or more, or 0 for one split")
        return folds

    @property
    def grid(self) -> Grid:
        """The grid alone."""
        return Grid(spacing=self.spacing, shape=self.shape)


class NetworkSettings(Branch):
    """`[network]`."""

    arch: Architecture = Field("resnet", description="MONAI's 3-D networks; only the ResNets have a depth")
    depth: Literal[10, 18, 34, 50] = Field(50, description="of a ResNet")
    stem_stride: Literal[1, 2] = Field(2, description="2 as MedicalNet; 1 costs 8 times the arithmetic; of a ResNet")
    dropout: float = Field(0.4, ge=0, lt=1)
    norm: Literal["batch", "group"] = Field("batch", description="group: GroupNorm in place of every BatchNorm")
    pretrained: SettingPath | None = Field(None, description="a MedicalNet file, for a ResNet")

    @model_validator(mode="after")
    def _only_resnets_have(self) -> Self:
        if self.arch != "resnet":
            for name in ("depth", "stem_stride", "pretrained"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{self.arch} has no {name} to choose, a ResNet has; take network.{name} out")
        return self


class AugmentSettings(Branch):
    """`[training.augment]`: limits of the uniform draws."""

    rotation: float = Field(10.0, ge=0, le=180, description="degrees, about each axis, either way")
    zoom: float = Field(0.08, ge=0, lt=0.5, description="share, either way")
    translation: float = Field(0.08, ge=0, lt=0.5, description="share of the axis, either way")
    flips: bool = Field(True, description="left-right, with probability one half")
    modality_dropout: float = Field(0.0, ge=0, le=1, description="share of patients who lose one modality at random")
    slice_thickness: float = Field(
        0.0, ge=0, le=20, description="mm; each modality as from slices up to this thick, along an axis at random"
    )
    intensity: float = Field(
        0.0, ge=0, lt=1, description="each modality's contrast (share) and brightness (standard deviations), either way"
    )


class TrainingSettings(Branch):
    """`[training]`."""

    epochs: int = Field(40, ge=1, le=_MOST)
    min_epochs: int = Field(15, ge=0, le=_MOST, description="early stopping does not act before")
    early_stopping: int = Field(10, ge=1, le=_MOST, description="epochs without a better validation AUC")
    batch_size: int = Field(4, ge=1, le=_MOST)
    accumulation: int = Field(2, ge=1, le=_MOST, description="batches per optimiser step")
    lr: float = Field(1e-4, gt=0, description="backbone")
    head_lr: float = Field(2e-4, gt=0)
    warmup_epochs: float = Field(3, ge=0, le=_MOST, description="linear rise of the learning rate")
    weight_decay: float = Field(1e-4, ge=0)
    sampler: Literal["weighted", "shuffle"] = Field(
        "weighted", description="weighted: inverse class frequency, with replacement"
    )
    loss: Literal["cross-entropy", "ldam"] = "cross-entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    class_weights: bool = Field(False, description="weigh the loss by inverse class frequency, n / (2 n_class)")
    ldam_max_m: float = Field(0.15, gt=0, description="largest margin (Cao 2019)")
    ldam_s: float = Field(12.0, gt=0, description="scale of the cosines")
    drw_epoch: int | None = Field(
        None, ge=1, le=_MOST, description="deferred re-weighting from this epoch (counted from 1) on"
    )
    drw_beta: float = Field(0.9999, gt=0, lt=1, description="effective number of samples (Cui 2019)")
    clip: float | None = Field(None, gt=0, description="largest norm of an optimiser step's gradient")
    ema: float = Field(
        0.75, ge=0, le=0.95, description="share of the averaged network that is left after an epoch; 0 averages nothing"
    )
    frozen_bn_epoch: int = Field(
        10,
        ge=0,
        le=_MOST,
        description="BatchNorm statistics stand still from this epoch on, once they have settled; 0: never",
    )
    seed: int = Field(0, ge=0, lt=2**63)
    device: Device = "auto"
    amp: Literal["auto", "fp16", "bf16", "off"] = Field("auto", description="auto: fp16 on a GPU, off on a CPU")
    sync_batchnorm: bool = Field(False, description="on several GPUs, cut every batch into a part for each")
    cuda_graph: bool = Field(True, description="replay each step as a CUDA graph, on a GPU")
    deterministic: bool = Field(True, description="on a GPU too: same seed, same card, same bits")
    tensorboard: bool = False
    tracker: Literal["none", "mlflow"] = Field("none", description="keep the training as an MLflow run, too")
    tracker_uri: Address = Field("", description="MLflow's store; else the folder mlruns next to the runs")
    augment: AugmentSettings = AugmentSettings()


def parse_rule(rule: str) -> tuple[str, float, float]:
    """Split a threshold rule into its name and numbers.

    Args:
        rule: `youden`, `sensitivity=S` with 0 < S < 1, or `cost=FN:FP` with positive costs.

    Returns:
        (name, first number, second number); numbers that a rule lacks are 0.

    Raises:
        ValueError: the rule is none of these.
    """
    name, _, rest = rule.partition("=")
    try:
        if name == "youden" and not rest:
            return name, 0.0, 0.0
        if name == "sensitivity" and 0 < float(rest) < 1:
            return name, float(rest), 0.0
        if name == "cost":
            missed, false = (float(x) for x in rest.split(":"))
            if 0 < missed < float("inf") and 0 < false < float("inf"):
                return name, missed, false
    except ValueError:
        pass
    raise ValueError(
        f"'{rule}' is no threshold rule; write youden, sensitivity=0.95 or cost=5:1 (missed HGG : false HGG)"
    )


class CalibrationSettings(Branch):
    """`[calibration]`."""

    method: Literal["platt", "temperature", "none"] = "platt"
    rule: str = Field("youden", description="youden, sensitivity=S or cost=FN:FP")

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, rule: str) -> str:
        parse_rule(rule)
        return rule


class ExportSettings(Branch):
    """`[export]`."""

    max_batch: int = Field(8, ge=1, le=256)
    opt_batch: int | None = Field(
        None, ge=1, le=_MOST, description="batch that a TensorRT engine is tuned for; else max_batch"
    )
    workspace_gb: float | None = Field(None, gt=0, description="GiB that a TensorRT build may take; else all")
    opt_level: int | None = Field(None, ge=0, le=5, description="effort of a TensorRT build; else TensorRT's default")
    allow_fp32_layers: bool = Field(False, description="accept an engine that is not half precision throughout")

    @field_validator("opt_batch")
    @classmethod
    def _within_max_batch(cls, best: int | None, info: ValidationInfo) -> int | None:
        if best is not None and best > info.data.get("max_batch", best):
            raise ValueError(f"a batch of at most max_batch = {info.data['max_batch']} is possible")
        return best


class PredictSettings(Branch):
    """`[predict]`: None means chosen for the machine, and shown."""

    batch_size: int | None = Field(None, ge=1, le=_MOST)
    workers: int | None = Field(None, ge=1, le=_MOST)
    readers: Readers = Field("auto", description="auto: processes where threads hold each other up")


class Settings(Branch):
    """Everything that `grade.toml` may say."""

    strategy: Strategy = "stable"
    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    training: TrainingSettings = TrainingSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    export: ExportSettings = ExportSettings()
    predict: PredictSettings = PredictSettings()
    hospital: HospitalSettings = HospitalSettings()
    commission: CommissionSettings = CommissionSettings()
    monitor: MonitorSettings = MonitorSettings()

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        if self.network.arch in _FIVE_HALVINGS and min(self.data.shape) < 2**5:
            raise ValueError(
                f"{self.network.arch} halves a scan five times, so each axis of data.shape needs 32 voxels or more;"
                f" it is {list(self.data.shape)}"
            )
        return self

    @model_validator(mode="after")
    def _can_lack_a_modality(self) -> Self:
        if self.data.optional and not self.training.augment.modality_dropout:
            raise ValueError("data.optional needs training.augment.modality_dropout, such as 0.3")
        if self.data.optional and self.data.folds:
            raise ValueError("data.optional does not go with folds: take one split")
        return self
