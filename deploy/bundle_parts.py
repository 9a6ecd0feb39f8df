"""What a MONAI bundle's `inference.json` names: the patients, the network, the transforms before and after it."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from torch import Tensor, nn

from deploy.model.manifest import NetworkRecord
from deploy.runtimes.torch import recorded_network
from toolkit.config import Grid
from toolkit.data.patients import CLASSES, Patient, find_patients
from toolkit.data.scan import read_scan
from toolkit.evaluation.calibration import Calibration
from toolkit.training.network.network import Outputs

COLUMNS = ("patient", "grade", "probability", "threshold")


class LogitsNet(nn.Module):
    """The network with its logits as the only output, since a bundle's network gives one tensor.

    Args:
        record: the manifest's `network`; the state dict brings all weights.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__()
        self.network = recorded_network(NetworkRecord.model_validate(record))

    def forward(self, scan: Tensor) -> Tensor:
        """float32 (B, 4, X, Y, Z), z-scores -> logits (B, 2), LGG and HGG."""
        outputs: Outputs = self.network(scan)
        return outputs.logits


def list_patients(dataset_dir: str) -> list[dict[str, str]]:
    """The patients at or below a folder: `patient` their id, `image` their folder.

    Raises:
        CohortError: see `find_patients`.
    """
    found = find_patients([Path(dataset_dir)])
    return [{"patient": patient.id, "image": str(patient.folder)} for patient in found]


class ReadScand(MapTransform):  # type: ignore[misc]  # MONAI carries no types
    """A patient's folder becomes its scan by `toolkit.data.scan`: what training and `grade predict` see.

    Args:
        keys: of the folders.
        spacing: of the grid, mm.
        shape: of the grid, voxels along right, anterior, superior.
    """

    def __init__(self, keys: KeysCollection, spacing: float, shape: tuple[int, int, int]) -> None:
        super().__init__(keys)
        self._grid = Grid.model_validate({"spacing": spacing, "shape": shape})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The folders replaced by float32 (4, X, Y, Z).

        Raises:
            PatientRefused: see `read_scan`.
        """
        scans = {}
        for key in self.key_iterator(data):
            folder = Path(data[key])
            scans[key] = torch.from_numpy(read_scan(Patient(folder.name, folder), self._grid).data)
        return {**data, **scans}


class Graded(Transform):  # type: ignore[misc]
    """The logits become the calibrated probability and the grade, by the model's calibration and threshold.

    Args:
        calibration: the manifest's.
    """

    def __init__(self, calibration: dict[str, Any]) -> None:
        self._calibration = Calibration.model_validate(calibration)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Take `pred`, logits (2,); give `pred`, P(HGG) (1,) float64, `grade` and `threshold`.

        Raises:
            GradeError: a logit is not finite.
        """
        lgg, hgg = data["pred"].double().tolist()
        probability = float(self._calibration.probability(hgg - lgg))
        threshold = self._calibration.threshold
        pred = torch.tensor([probability], dtype=torch.float64)
        return {**data, "pred": pred, "grade": CLASSES[int(probability >= threshold)], "threshold": threshold}


class WriteGraded(Transform):  # type: ignore[misc]
    """Writes a row as each patient is done.

    Args:
        output_dir: folder of `predictions.csv`; what an earlier call wrote there is replaced.
    """

    def __init__(self, output_dir: str) -> None:
        self._file = Path(output_dir) / "predictions.csv"
        self._begun = False

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Take what `Graded` gives and hand it on."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a" if self._begun else "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            if not self._begun:
                writer.writerow(COLUMNS)
            writer.writerow((data["patient"], data["grade"], float(data["pred"][0]), data["threshold"]))
        self._begun = True
        return data
