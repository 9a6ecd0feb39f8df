"""The run folder: settings, split, history, checkpoints and results; every file is replaced whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from toolkit.arrays import Float64, Int64
from toolkit.config import Settings, dump_settings
from toolkit.data.layout import PHANTOMS
from toolkit.data.patients import CLASSES, Cohort, Patient
from toolkit.errors import RunError
from toolkit.evaluation.calibration import Calibration
from toolkit.files import alone, first_line, first_problem, write_file
from toolkit.frozen import Frozen
from toolkit.plain import read_json
from toolkit.training.runs.tables import read_table, table_text

if TYPE_CHECKING:  # torch takes seconds to load: only what needs the weights loads it
    from toolkit.training.network.network import GradeNet

SPLIT = ("patient", "grade", "site", "split", "folder", "images")
_STEPS = ("epoch", "step", "loss")
_VALIDATION = ("patient", "grade", "logit_lgg", "logit_hgg")


class EpochRow(Frozen):
    """One finished epoch, one line of `history.csv`.

    Attributes:
        epoch: counted from 1.
        train_loss: mean over the epoch of the loss that was minimised.
        train_auc: of the logits that the epoch trained on; None with one class.
        val_loss: plain cross-entropy.
        val_auc: None with one class.
        lr: of the backbone at the last step.
        head_lr: of the head at the last step.
        seconds: training and validation.
        images_per_second: of training alone.
    """

    epoch: int
    train_loss: float
    train_auc: float | None
    val_loss: float
    val_auc: float | None
    lr: float
    head_lr: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class ValidationTable:
    """The best network's answers on the validation patients.

    Attributes:
        patients: ids.
        grades: (N,) int64, 0 LGG, 1 HGG.
        logits: (N, 2) float64, LGG and HGG.
    """

    patients: tuple[str, ...]
    grades: Int64
    logits: Float64

    @property
    def logit(self) -> Float64:
        """HGG minus LGG, (N,): what calibration and AUC look at."""
        difference: Float64 = self.logits[:, 1] - self.logits[:, 0]
        return difference


@dataclass(frozen=True)
class Checkpoint:
    """The state at the end of the last epoch of `history`; tensors and plain numbers only.

    `steps` has the mean loss of each optimiser step, epoch by epoch; `average` is empty where nothing is averaged;
    `settings` and `split` are the texts of `settings.toml` and `split.csv` that the epochs were trained with.
    """

    history: list[EpochRow]
    steps: list[list[float]]
    network: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    settings: str = ""
    split: str = ""


@dataclass(frozen=True)
class Run:
    """A run folder and its settings. Readers raise RunError where a file is missing or broken."""

    folder: Path
    settings: Settings

    @property
    def ended(self) -> bool:
        """Whether it was trained to its end: the page is the last file to be written."""
        return (self.folder / "report.html").is_file()

    def alone(self) -> AbstractContextManager[None]:
        """The right to train this run; a second process gets a RunError."""
        busy = RunError(f"run {self.folder} is being trained by another process; wait for it, or stop it.")
        return alone(self.folder / ".lock", busy)

    def history(self) -> list[EpochRow]:
        """The finished epochs, in order."""
        file = self._file("history.csv", "no epoch has finished")
        try:
            rows = read_table(file, tuple(EpochRow.model_fields))
            return [EpochRow.model_validate({key: value or None for key, value in row.items()}) for row in rows]
        except ValidationError as error:
            raise RunError(f"{file} is broken: {first_problem(error)}; `grade train --resume` rewrites it.") from None

    def step_losses(self) -> list[float]:
        """The mean loss of each optimiser step, in order; NaN where a step was skipped."""
        file = self._file("steps.csv", "no epoch has finished")
        try:
            return [float(row["loss"]) for row in read_table(file, _STEPS)]
        except ValueError as error:
            raise RunError(f"{file} is broken: {error}; `grade train --resume` rewrites it.") from None

    def write_steps(self, steps: Sequence[Sequence[float]]) -> None:
        """Write the whole of `steps.csv`: the mean loss of each optimiser step, epoch by epoch."""
        rows = [
            {"epoch": epoch, "step": number, "loss": loss}
            for epoch, losses in enumerate(steps, start=1)
            for number, loss in enumerate(losses, start=1)
        ]
        self.write("steps.csv", table_text(_STEPS, rows))

    def write_history(self, history: Sequence[EpochRow]) -> None:
        """Write the whole of `history.csv`."""
        rows = [row.model_dump() for row in history]
        self.write("history.csv", table_text(tuple(EpochRow.model_fields), rows))

    def split_text(self) -> str:
        """The text of `split.csv`."""
        return self._text("split.csv")

    def split_rows(self) -> list[dict[str, str]]:
        """The rows of `split.csv`; `images` is empty where the content of a patient's images was not noted."""
        file = self._file("split.csv", "it was not created by `grade train`")
        return read_table(file, SPLIT[:-1], optional=SPLIT[-1:])

    def training_patients(self) -> Cohort:
        """Who was trained on."""
        return self._patients("training")

    def validation_patients(self) -> Cohort:
        """Who was validated on."""
        return self._patients("validation")

    def validation(self) -> ValidationTable:
        """The best network's logits on the validation patients."""
        file = self._file("validation.csv", "the training has not ended")
        rows = read_table(file, _VALIDATION)
        try:
            logits = [[float(row["logit_lgg"]), float(row["logit_hgg"])] for row in rows]
        except ValueError as error:
            raise RunError(f"{file} is broken: {error}; `grade train --resume` rewrites it.") from None
        return ValidationTable(
            tuple(row["patient"] for row in rows),
            np.array([_class(row["grade"], file) for row in rows], np.int64),
            np.array(logits, np.float64).reshape(-1, len(CLASSES)),
        )

    def write_validation(self, table: ValidationTable) -> None:
        """Write `validation.csv`."""
        rows = [
            {"patient": patient, "grade": CLASSES[grade], "logit_lgg": float(lgg), "logit_hgg": float(hgg)}
            for patient, grade, (lgg, hgg) in zip(table.patients, table.grades, table.logits, strict=True)
        ]
        self.write("validation.csv", table_text(_VALIDATION, rows))

    def calibration(self) -> Calibration:
        """Probability and threshold."""
        file = self._file("calibration.json", "the training has not ended")
        try:
            return Calibration.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise RunError(f"{file} is broken: {first_problem(error)}; `grade calibrate` rewrites it.") from None

    def build_network(self) -> GradeNet:
        """A network as the settings ask for it, with fresh weights."""
        from toolkit.training.network.network import build_network

        training = self.settings.training
        return build_network(self.settings.network, training.loss == "ldam", training.ldam_s)

    def load_best(self) -> GradeNet:
        """The network of the best epoch, in eval mode, on the CPU."""
        from toolkit.training.network.checkpoint import read_weights
        from toolkit.training.network.network import with_weights

        file = self._file("best.safetensors", "no epoch has finished")
        try:
            return with_weights(self.build_network, read_weights(file))
        except RuntimeError as error:
            raise RunError(
                f"{file} cannot be loaded, it does not fit the run's settings: {first_line(error)}; train again."
            ) from error

    def save_best(self, network: GradeNet) -> None:
        """Write `best.safetensors`."""
        from toolkit.training.network.checkpoint import write_weights

        tensors = {name: x.detach().cpu().contiguous() for name, x in network.state_dict().items()}
        write_weights(self.folder / "best.safetensors", tensors)

    def environment(self) -> dict[str, str]:
        """Versions and device that trained, by name."""
        file = self._file("environment.json", "the training has not begun")
        try:
            return {str(name): str(value) for name, value in read_json(file).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise RunError(f"{file} is broken: {error}; `grade train --resume` rewrites it.") from None

    def load_last(self) -> Checkpoint | None:
        """The last finished epoch; None before there is one."""
        file = self.folder / "last.pt"
        if not file.exists() and not file.is_symlink():
            return None
        from toolkit.training.network.checkpoint import read_checkpoint

        content = read_checkpoint(file)
        try:
            content["history"] = [EpochRow.model_validate(row) for row in content["history"]]
            last = Checkpoint(**content)
            if [row.epoch for row in last.history] != list(range(1, len(last.steps) + 1)):
                raise ValueError("its epochs are not counted from 1 on")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RunError(
                f"{file} cannot be used: {first_line(error)}; delete it to train this run from the first epoch."
            ) from error
        return last

    def save_last(self, checkpoint: Checkpoint) -> None:
        """Write `last.pt`, then `steps.csv` and `history.csv`."""
        from toolkit.training.network.checkpoint import write_checkpoint

        content = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
        content["history"] = [row.model_dump() for row in checkpoint.history]
        content["settings"], content["split"] = dump_settings(self.settings), self.split_text()
        write_checkpoint(self.folder / "last.pt", content)
        self.write_steps(checkpoint.steps)
        self.write_history(checkpoint.history)

    def write(self, name: str, text: str) -> None:
        """Write a text file of the run."""
        write_file(self.folder / name, text, RunError)

    def _file(self, name: str, reason: str) -> Path:
        file = self.folder / name
        if not file.is_file():
            raise RunError(f"run {self.folder} has no {name}: {reason}; `grade train --resume` continues it.")
        return file

    def _text(self, name: str) -> str:
        file = self._file(name, "it was not created by `grade train`")
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RunError(f"{file} is broken: {first_line(error)}; restore it or train again.") from error

    def _patients(self, part: str) -> Cohort:
        file = self._file("split.csv", "it was not created by `grade train`")
        rows = [row for row in self.split_rows() if row["split"] == part]
        patients = tuple(Patient(row["patient"], Path(row["folder"])) for row in rows)
        grades = tuple(_class(row["grade"], file) for row in rows)
        sites = tuple(row["site"] or None for row in rows)
        return Cohort(patients, grades, sites if any(sites) else (), labels=self.labels())

    def labels(self) -> str:
        """The sentence about where the grades come from."""
        return self._text("labels.txt").strip()

    @property
    def synthetic(self) -> bool:
        """Whether phantoms are among its patients."""
        return PHANTOMS in self.labels()


def _class(name: str, file: Path) -> int:
    if name not in CLASSES:
        raise RunError(f"{file} is broken: grade '{name}' is none of {', '.join(CLASSES)}; fix that line.")
    return CLASSES.index(name)
