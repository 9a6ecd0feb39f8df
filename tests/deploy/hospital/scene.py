"""Small things for tests of the space rooms: a head that is a formula, and a network that knows its brain."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deploy.hospital.volume import Volume
from toolkit.data.patients import MODALITIES
from toolkit.data.template import mni


def rigid(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> NDArray[np.float64]:
    """A motion (4, 4), RAS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


@cache
def _template() -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """The brain, 0 to 1, 2 mm; mm from it; and where it is."""
    brain, to_mm = mni("t1", 2)
    brain = brain / brain.max()
    return brain, ndimage.distance_transform_edt(brain <= 0.05) * 2, to_mm


def template_head(
    motion: NDArray[np.float64], power: float = 1.0, edge: tuple[float, float, float] = (2, 2, 4)
) -> Volume:
    """The MNI brain in a thin scalp, moved, on a grid of its own: brain 100 to 200, scalp about 60, air 0.

    Args:
        motion: (4, 4), from the template's points to the scanner's, RAS mm.
        power: of the brightness; negative turns the contrast over, as between T1 and T2.
        edge: mm, of a voxel.
    """
    brain, depth, to_mm = _template()
    mask = depth == 0
    head = np.where(mask, 100 + 100 * (brain**power if power > 0 else 1 - brain), 0)
    head[(depth > 5) & (depth < 11)] = 60
    size = np.array([int(220 / edge[0]), int(250 / edge[1]), int(210 / edge[2])])
    affine = np.diag([*edge, 1.0])
    affine[:3, 3] = (0, -18, 8) - affine[:3, :3] @ (size - 1) / 2
    into = np.linalg.inv(to_mm) @ np.linalg.inv(motion) @ affine
    voxels = ndimage.affine_transform(head, into[:3, :3], into[:3, 3], tuple(size), order=1)
    voxels += np.random.default_rng([1, round(100 * abs(power))]).normal(0, 1.5, voxels.shape)
    return Volume(voxels.astype(np.float32), affine)


def template_brain(motion: NDArray[np.float64]) -> Volume:
    """The MNI brain, 0 outside it, moved; 2 mm. The template's own edges ring far out."""
    voxels, to_mm = mni("t1", 2)
    return Volume(np.where(voxels > 0.1 * voxels.max(), voxels, np.float32(0)), motion @ to_mm)


def study(motions: dict[str, NDArray[np.float64]], edge: float = 6) -> dict[str, Volume]:
    """Four series of the same head with different contrasts, on voxels of `edge` mm."""
    powers, voxel = {"flair": 0.5, "t1": 1.0, "t1ce": 1.3, "t2": -1.0}, (edge, edge, edge)
    series = {name: template_head(motions.get(name, np.eye(4)), powers[name], voxel) for name in MODALITIES}
    enhancing = series["t1ce"].voxels  # a tumour that takes up the contrast agent
    x, y, z = (n // 2 for n in enhancing.shape)
    enhancing[x + 4 : x + 9, y : y + 5, z : z + 4] += 60
    return series


def write_bright_network(file: Path) -> Path:
    """A network with the brain mask's input and outputs that takes for brain what is bright: above z-score 0.6."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "z", "y", "x"])
    likely = helper.make_tensor_value_info("likely", TensorProto.FLOAT, [1, 2, "z", "y", "x"])
    weights = [
        helper.make_tensor("level", TensorProto.FLOAT, [], [0.6]),
        helper.make_tensor("steep", TensorProto.FLOAT, [], [30.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
    ]
    nodes = [
        helper.make_node("Sub", ["image", "level"], ["above"]),
        helper.make_node("Mul", ["above", "steep"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["brain"]),
        helper.make_node("Sub", ["one", "brain"], ["rest"]),
        helper.make_node("Concat", ["rest", "brain"], ["likely"], axis=1),
    ]
    graph = helper.make_graph(nodes, "bright", [image], [likely], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file
