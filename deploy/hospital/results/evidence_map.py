"""What moved the answer as a parametric map in the frame of the T1 after contrast. On request: few archives show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset

from deploy.hospital.results import codes
from deploy.hospital.results.identity import (
    MANUFACTURER,
    MODEL_NAME,
    Answer,
    complete_head,
    keep_characters,
)
from deploy.hospital.results.pictures import Volume

SERIES = 9805
REFERENCE = "t1ce"  # the series in whose frame of reference the map is
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from RAS, as NIfTI has it


@dataclass(frozen=True)
class Evidence:
    """A map of evidence and where it is.

    Attributes:
        voxels: float32 (X, Y, Z), logits of HGG minus LGG lost when a place shows the brain's mean.
        affine: (4, 4), from voxels to mm of the T1 after contrast as it was scanned, RAS.
    """

    voxels: Volume
    affine: np.ndarray[Any, np.dtype[np.float64]]


def build_map(answer: Answer, evidence: Evidence) -> Dataset:
    """A parametric map; its grid is turned against the scanner's slices, and nothing is interpolated.

    Args:
        answer: of a graded study.
        evidence: see `Evidence`.
    """
    source = answer.used[REFERENCE]
    voxels = np.ascontiguousarray(evidence.voxels, np.float32)
    volume = hd.Volume(
        voxels,
        _LPS @ evidence.affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=source[0].FrameOfReferenceUID,
    )
    largest = float(np.abs(voxels).max()) or 1.0
    meaning = RealWorldValueMapping(
        lut_label="logit",
        lut_explanation="logit of HGG minus LGG lost by occlusion",
        unit=codes.NO_UNIT,
        value_range=(-largest, largest),
        slope=1,
        intercept=0,
        quantity_definition=codes.coded(codes.EVIDENCE),
    )
    instance: Dataset = ParametricMap(
        source_images=[complete_head(image) for image in source],
        pixel_array=volume,
        series_instance_uid=answer.uid("map", "series"),
        series_number=SERIES,
        sop_instance_uid=answer.uid("map", "instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=answer.version,
        device_serial_number=answer.model[:12],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[meaning],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.0, window_width=2 * largest)],
        content_label="EVIDENCE",
        content_description=f"What moved the answer ({answer.use})",
        series_description=f"Glioma grading evidence ({answer.use})",
    )
    instance.BodyPartExamined = "BRAIN"
    return keep_characters(instance, answer.images[0])
