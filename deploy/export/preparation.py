"""The preprocessing on the card: its graphs, written node by node, and their gate at export.

python -m deploy.export.preparation    # writes the graphs into deploy/runtimes; a test holds them against this
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.export.graph import IR_VERSION, OPSET
from deploy.lanes import Lanes
from deploy.model.folder import Draft
from deploy.runtime import RuntimeOutputs
from deploy.runtimes.card import LIMIT, OUT, Card, near
from deploy.runtimes.onnx import OnnxRuntime
from deploy.selftest import LIMITS, probability
from toolkit.config import Grid
from toolkit.data.box import Box, read_box
from toolkit.data.patients import MODALITIES, Patient
from toolkit.data.scan import BRAIN, ENOUGH, Scan
from toolkit.errors import ModelError

SMALLEST = 1e-30  # variance; of a modality that is missing it is 0
_SCAN: list[str | int | None] = [1, len(MODALITIES), "width", "depth", "height"]
_TYPES = {"int16": TensorProto.INT16, "float32": TensorProto.FLOAT}
_NUMBERS: dict[str, Any] = {
    "first": np.array([0]), "second": np.array([1]), "third": np.array([2]), "fourth": np.array([3]),
    "by_modality": np.array([len(MODALITIES), 1, 1, 1]),
    "whole": np.array(1, np.float32), "half": np.array(0.5, np.float32), "smallest": np.array(SMALLEST, np.float32),
    "brain": np.array(BRAIN, np.float32), "enough": np.array(ENOUGH, np.float32),
}  # fmt: skip
MOST = 4  # patients: the graph has nothing that is learned, and every prediction on a card proves it once more


def write_preparation(dtype: str) -> bytes:
    """The graph that resamples a box and z-scores it: `toolkit.data.scan.make_scan`, for any grid.

    Args:
        dtype: of the voxels, `int16` or `float32`.

    Returns:
        ONNX with inputs as the attributes of `Box`, the matrices as `x`, `y`, `z`, those of `deploy.runtimes.card.near`
        as `rim_x` to `inside_z`, and the output `scan`, float32 (1, 4, X, Y, Z).
    """
    graph = _Nodes()
    node, along = graph.node, graph.along
    voxels = node("Cast", "voxels", to=TensorProto.FLOAT)  # (4, Z, Y, X)
    mask = node("Unsqueeze", node("Cast", "mask", to=TensorProto.FLOAT), "first")  # (1, Z, Y, X)
    data = node("Mul", along(voxels, "x", "y", "z"), node("Reshape", "signs", "by_modality"))  # (4, X', Y', Z')
    share = along(mask, "x", "y", "z")  # (1, X', Y', Z')
    outside = node("Cast", node("LessOrEqual", share, "brain"), to=TensorProto.FLOAT)
    deep = graph.eroded(outside, "inside")
    few = node("Less", graph.total(deep), "enough")
    inside = node("Where", few, node("Sub", "whole", outside), deep)
    seen = node("Where", few, "whole", graph.eroded(outside, "rim"))
    scores = graph.scaled(graph.centred(data, inside, share), inside)
    node("Unsqueeze", node("Mul", scores, seen), "first", out=OUT)
    given = {
        "voxels": (_TYPES[dtype], [len(MODALITIES), "Z", "Y", "X"]),
        "mask": (TensorProto.BOOL, ["Z", "Y", "X"]),
        "x": (TensorProto.FLOAT, ["width", "X"]),
        "y": (TensorProto.FLOAT, ["depth", "Y"]),
        "z": (TensorProto.FLOAT, ["height", "Z"]),
        "signs": (TensorProto.FLOAT, [len(MODALITIES)]),
    }
    given |= {name: (TensorProto.FLOAT, [f"{name}_{k}" for k in range(2)]) for name in near(Grid())}
    return _model(graph.nodes, given, _NUMBERS)


class _Nodes:
    """Nodes of a graph, in order; each method adds some and returns the name of what comes out."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []

    def node(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """One node."""
        out = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def total(self, name: str) -> str:
        """Over a volume (C, ...), (C, 1, 1, 1); by axis: one long sum in float32 loses three digits on a processor."""
        for axis in ("fourth", "third", "second"):
            name = self.node("ReduceSum", name, axis, keepdims=1)
        return name

    def centred(self, name: str, within: str, share: str) -> str:
        """Less its mean within a mask, as far as a voxel is brain."""
        weight = self.total(self.node("Mul", share, within))
        mean = self.node("Div", self.total(self.node("Mul", name, within)), weight)
        return self.node("Sub", name, self.node("Mul", mean, share))

    def scaled(self, name: str, within: str) -> str:
        """By its standard deviation within a mask, where its mean is 0."""
        part = self.node("Mul", name, within)
        variance = self.node("Div", self.total(self.node("Mul", part, part)), self.total(within))
        return self.node("Div", name, self.node("Sqrt", self.node("Max", variance, "smallest")))

    def along(self, name: str, x: str, y: str, z: str) -> str:
        """A matrix (out, in) on each axis: (C, Z, Y, X) -> (C, X', Y', Z')."""
        right = self.node("MatMul", name, self.node("Transpose", x, perm=[1, 0]))  # (C, Z, Y, X')
        front = self.node("MatMul", y, right)  # (C, Z, Y', X')
        turned = self.node("Transpose", front, perm=[0, 3, 2, 1])  # (C, X', Y', Z)
        return self.node("MatMul", turned, self.node("Transpose", z, perm=[1, 0]))

    def eroded(self, outside: str, reach: str) -> str:
        """1 in voxels of the grid (1, X', Y', Z') with nothing outside the brain in reach: it is counted."""
        turned = self.node("Transpose", outside, perm=[0, 3, 2, 1])
        count = self.along(turned, *(f"{reach}_{axis}" for axis in "xyz"))
        return self.node("Cast", self.node("Less", count, "half"), to=TensorProto.FLOAT)


def write_copy() -> bytes:
    """The graph for a scan that is finished: it goes where the others are made."""
    return _model([helper.make_node("Identity", ["voxels"], [OUT])], {"voxels": (TensorProto.FLOAT, _SCAN)}, {})


def _model(nodes: Sequence[Any], given: Mapping[str, Any], numbers: Mapping[str, Any]) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "prepare",
        [helper.make_tensor_value_info(name, kind, size) for name, (kind, size) in given.items()],
        [helper.make_tensor_value_info(OUT, TensorProto.FLOAT, _SCAN)],
        [numpy_helper.from_array(value, name) for name, value in numbers.items()],
    )
    model = helper.make_model(
        graph, producer_name="grade", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def graphs() -> dict[str, bytes]:
    """All of them, by the kind that `deploy.runtimes.card` asks for."""
    return {**{name: write_preparation(name) for name in _TYPES}, "scan": write_copy()}


class Prepared(NamedTuple):
    """A scan that the graph made.

    Attributes:
        off: by how much a z-score differs from the processor's, at most.
        answer: to it.
    """

    off: float
    answer: RuntimeOutputs


class PreparationGate:
    """Compares scans that the graph of `deploy.runtimes.card` makes with those of `toolkit.data.scan`.

    Args:
        model: whose grid and calibration count.
        runtime: where the graph runs; on a GPU where there is one.
        lanes: where it answers on the processor.
    """

    def __init__(self, model: Draft, runtime: OnnxRuntime, lanes: Lanes) -> None:
        self._model, self._runtime, self._lanes, self._left = model, runtime, lanes, MOST
        self._card, self._memory = Card(runtime, 1), Lock()
        lanes.ask(runtime, self._card.prove).result()

    def ask(self, patient: Patient, scan: Scan) -> Future[Prepared] | None:
        """Let the graph make a patient's scan, and the runtime answer it; None after the first few.

        Args:
            patient: whose files are read again.
            scan: of the processor.
        """
        if not self._left:
            return None
        self._left -= 1
        _, box = read_box(patient, Grid(**self._model.manifest.grid.model_dump()))
        if box is None:
            return None
        return self._lanes.ask(self._runtime, self._prepared, box, scan)

    def _prepared(self, box: Box, scan: Scan) -> Prepared:
        with self._memory:
            self._card.fill(0, box)
            made = self._card.scans.on_host()
        # A card has one lane, so that nobody fills its memory before it has answered.
        scans = made if self._runtime.device == "cpu" else self._card.scans
        return Prepared(float(np.abs(made[0] - scan.data).max()), self._runtime.infer(scans))

    def patient(self, name: str, asked: Future[Prepared] | None, answer: RuntimeOutputs) -> None:
        """Compare on a patient.

        Args:
            name: for a sentence.
            asked: of `ask`.
            answer: of the runtime to the processor's scan.

        Raises:
            ModelError: a z-score, the probability or the grade differs by more than it may.
        """
        if asked is None:
            return
        prepared, limit = asked.result(), LIMITS[self._runtime.precision]
        off = prepared.off
        calibration = self._model.manifest.calibration
        p, q = (probability(one, calibration)[0] for one in (answer, prepared.answer))
        if not (off <= LIMIT and abs(p - q) <= limit):
            raise ModelError(
                f"the preprocessing on {self._runtime.device} differs for patient {name} by {off:.2g} in a"
                f" z-score and {abs(p - q):.2g} in probability, more than {LIMIT:g} and {limit:g}."
            )


if __name__ == "__main__":
    for kind, content in graphs().items():
        (Path(__file__).parents[1] / "runtimes" / f"prepare_{kind}.onnx").write_bytes(content)
