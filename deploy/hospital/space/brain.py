"""The brain in a head: HD-BET's network, as `grade export --brain` wrote it, in ONNX Runtime.

Source: Isensee et al. 2019, doi 10.1002/hbm.24750. One of the five networks, without mirroring.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from deploy.hospital.space.image import coarse, resample, to_image, to_volume
from deploy.hospital.volume import Volume
from deploy.runtimes.onnx import LOAD_ERRORS, RUN_ERRORS
from toolkit.errors import PatientRefused, RuntimeUnavailable
from toolkit.files import first_line

INPUT = "image"
EDGE = 1.5  # mm, the voxels that the network was trained on
MULTIPLE = 16  # of voxels along each axis: the network halves them four times
LARGEST = 8_000_000  # voxels: a cube of 300 mm; more is no head
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class Brain:
    """The opened network.

    Attributes:
        session: of ONNX Runtime.
        device: `cpu` or `cuda`.
    """

    session: Any
    device: str


def open_brain(graph: Path | bytes, threads: int) -> Brain:
    """Open the network, on a GPU if this ONNX Runtime can use one.

    Args:
        graph: `brain.onnx` of a model folder; of one that others made, its content, the hash checked.
        threads: CPU threads, at least 1.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # an arena keeps the largest head's memory for good
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    offered = onnxruntime.get_available_providers()
    wanted = [name for name in (CUDA, CPU) if name in offered]
    try:
        given = graph if isinstance(graph, bytes) else os.fspath(graph)
        session = onnxruntime.InferenceSession(given, options, providers=wanted)
    except (*LOAD_ERRORS, *RUN_ERRORS) as error:
        raise RuntimeUnavailable(
            f"ONNX Runtime cannot load the brain mask's network: {first_line(error)}; run `grade export --brain` again."
        ) from error
    return Brain(session, "cuda" if session.get_providers()[0] == CUDA else "cpu")


def find_brain(brain: Brain, volume: Volume) -> Volume:
    """How likely each voxel is brain.

    Args:
        brain: from `open_brain`.
        volume: any of the four series, with the skull.

    Returns:
        Probability 0..1 on voxels of 1.5 mm along the head's axes, over the volume's whole field of view. Only the
        largest connected part over one half is kept.

    Raises:
        PatientRefused: the field of view is no head's, the image is constant, or there is no brain in it.
    """
    image = _standard(volume)
    voxels = np.asarray(sitk.GetArrayFromImage(image), np.float32)  # (Z, Y, X), LPS
    deviation = float(voxels.std())
    if not np.isfinite(deviation) or deviation == 0:
        raise PatientRefused("the series for the brain mask holds one value only")
    likely = _infer(brain, (voxels - voxels.mean()) / deviation)
    parts, count = ndimage.label(likely >= 0.5)
    if count == 0:
        raise PatientRefused("no brain was found in t1ce: is it a head?")
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    near = ndimage.binary_dilation(parts == largest, iterations=2)
    likely[~near | ((parts > 0) & (parts != largest))] = 0
    found = sitk.GetImageFromArray(likely)
    found.CopyInformation(image)
    return to_volume(found)


def _standard(volume: Volume) -> sitk.Image:
    """On voxels of 1.5 mm, axes left, posterior, superior as the head's: what the network was trained on."""
    image = sitk.DICOMOrient(to_image(volume), "LPS")
    sizes = [max(1, round(n * edge / EDGE)) for n, edge in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    if np.prod(sizes) > LARGEST:
        raise PatientRefused(f"t1ce covers {' x '.join(f'{n * EDGE:.0f}' for n in sizes)} mm, more than a head")
    like = sitk.Image(sizes, sitk.sitkFloat32)
    like.SetSpacing([EDGE] * 3)
    like.SetDirection(image.GetDirection())
    first = [(EDGE / edge - 1) / 2 for edge in image.GetSpacing()]  # the outer faces of both grids are the same
    like.SetOrigin(image.TransformContinuousIndexToPhysicalPoint(first))
    found = resample(coarse(image, EDGE), like, np.eye(4))
    return sitk.Maximum(found, float(volume.voxels.min()))  # the outermost half voxels of a shrunk image are empty


def _infer(brain: Brain, voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability of brain, of z-scored voxels (Z, Y, X)."""
    pads = [(0, -n % MULTIPLE) for n in voxels.shape]
    padded = np.pad(voxels, pads, constant_values=voxels.min())[None, None]  # (1, 1, Z, Y, X)
    try:
        (found,) = brain.session.run(None, {INPUT: np.ascontiguousarray(padded, np.float32)})
    except RUN_ERRORS as error:
        raise RuntimeUnavailable(f"the brain mask failed on {brain.device}: {first_line(error)}.") from error
    z, y, x = voxels.shape
    likely = np.array(found[0, 1, :z, :y, :x], np.float32)
    if not np.isfinite(likely).all():
        raise PatientRefused("the brain mask has no finite answer for t1ce")
    return likely
