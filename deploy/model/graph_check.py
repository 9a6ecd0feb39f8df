"""Is a graph one that this program could have written? Asked before ONNX Runtime or TensorRT sees it.

Only plain operators without loops are allowed, every size is worked out beforehand, and memory and arithmetic are
bounded by the scan's size: a graph cannot hang or fill the machine.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from deploy.model.manifest import ModelSpec
from deploy.model.wire import Graph, Node, Tensor, read_graph
from toolkit.errors import ModelError

MOST_MAP = 160  # numbers of one intermediate result, per voxel of the scan
MOST_RESULTS = 6_000  # numbers of all of them, per voxel and network
MOST_WORK = 1_000_000  # multiplications, per voxel and network
_SPARE = 10**6  # of each, for small grids
_FLOAT, _HALF, _INT64 = 1, 10, 7
_BYTES = {_FLOAT: 4, _HALF: 2, _INT64: 8}
_INPUT = "scan"

Shape = tuple[int, ...]

_SAME = {"Relu", "Cast", "Identity", "InstanceNormalization", "Sqrt", "Clip", "Sigmoid"}
_WIDER = {"Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Pow"}
_REDUCE = {"ReduceMean", "ReduceSum", "ReduceL2"}


class _State(NamedTuple):
    """Shapes of what is known by now, and the weights whose values shapes depend on."""

    shapes: dict[str, Shape]
    weights: dict[str, Tensor]


def check_graph(content: bytes, spec: ModelSpec, name: str) -> None:
    """Refuse a graph that no export writes.

    Args:
        content: of the ONNX file.
        spec: what the model says of its input, outputs and networks.
        name: of the file, for a sentence.

    Raises:
        ModelError: it is no ONNX file, uses an operator that is not allowed, does not fit the manifest, or would take
            more memory or time than a network of this size.
    """
    try:
        graph = read_graph(content)
        _check_ends(graph, spec)
        _check_weights(graph)
        _walk(graph, spec)
    except (ValueError, IndexError, KeyError, ZeroDivisionError, OverflowError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise ModelError(f"{name} is no graph of `grade export`: {reason}; export the model again.") from None


def _check_ends(graph: Graph, spec: ModelSpec) -> None:
    wanted: dict[str, Shape] = {
        "logits": (len(spec.classes),),
        "features": (spec.outputs.features,),
        "evidence": spec.outputs.evidence,
    }
    given = {name: end for name, end in graph.inputs.items() if name not in graph.weights}
    for found, shapes in ((given, {_INPUT: (len(spec.modalities), *spec.grid.shape)}), (graph.outputs, wanted)):
        if set(found) != set(shapes):
            raise ValueError(f"it has the ends {', '.join(sorted(found))[:80]}, not {', '.join(shapes)}")
        for name, shape in shapes.items():
            kind, dims = found[name]
            if kind != _FLOAT or dims[1:] != shape or (dims and dims[0] is not None):
                raise ValueError(f"{name} has the shape {dims}, not (batch, {', '.join(map(str, shape))})")


def _check_weights(graph: Graph) -> None:
    for name, weight in graph.weights.items():
        if weight.kind not in _BYTES:
            raise ValueError(f"the weight {name[:40]} has the type {weight.kind}")
        if any(n < 0 for n in weight.dims) or math.prod(weight.dims) * _BYTES[weight.kind] != weight.size:
            raise ValueError(f"the weight {name[:40]} of shape {weight.dims} has {weight.size} bytes")


def _walk(graph: Graph, spec: ModelSpec) -> None:
    """Sizes, memory and work of every node, for one scan."""
    scan: Shape = (1, len(spec.modalities), *spec.grid.shape)
    voxels, members = math.prod(spec.grid.shape), spec.network.members
    state = _State({name: weight.dims for name, weight in graph.weights.items()} | {_INPUT: scan}, graph.weights)
    made: set[str] = set()
    results = work = 0
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            raise ValueError(f"it uses an operator of '{node.domain[:40]}'")
        shape, cost = _shape(node, state)
        size = math.prod(shape)
        results, work = results + size, work + cost
        if any(n < 0 for n in shape) or size > MOST_MAP * voxels + _SPARE:
            raise ValueError(f"{node.kind} makes {size} numbers of one scan")
        if results > MOST_RESULTS * voxels * members + _SPARE or work > MOST_WORK * voxels * members + _SPARE:
            raise ValueError("it takes more memory or time than a network of its size")
        (name,) = node.outputs
        if name in state.shapes:
            raise ValueError(f"{name[:40]} is made twice")
        state.shapes[name] = shape
        made.add(name)
    if missing := set(graph.outputs) - made:
        raise ValueError(f"nothing makes {', '.join(sorted(missing))}")


def _shape(node: Node, state: _State) -> tuple[Shape, int]:
    """The shape of a node's output, and its multiplications; a batch of one scan."""
    if node.kind not in _KNOWN:
        raise ValueError(f"it uses the operator {node.kind[:40] or 'without a name'}, which no export writes")
    for name in node.inputs:
        if name and name not in state.shapes:
            raise ValueError(f"{node.kind} takes {name[:40]}, which is not made before it")
    given = [state.shapes[name] if name else () for name in node.inputs]
    if node.kind in _SAME:
        return given[0], math.prod(given[0])
    if node.kind in _WIDER:
        shape = _broadcast(given)
        return shape, math.prod(shape)
    return _KNOWN[node.kind](node, given, state)


def _broadcast(given: list[Shape]) -> Shape:
    rank = max(len(shape) for shape in given)
    padded = [(1,) * (rank - len(shape)) + shape for shape in given]
    out = []
    for lengths in zip(*padded, strict=True):
        longest = max(lengths)
        if any(n not in (1, longest) for n in lengths):
            raise ValueError(f"shapes {given} do not fit together")
        out.append(longest)
    return tuple(out)


def _numbers(node: Node, state: _State, index: int) -> tuple[int, ...]:
    """An input that has to be a stored list of integers."""
    name = node.inputs[index]
    weight = state.weights.get(name)
    if weight is None or weight.integers is None:
        raise ValueError(f"{node.kind} takes a shape or axes that are not stored")
    return weight.integers


def _windows(node: Node, size: Shape, kernel: Shape) -> Shape:
    """Sizes after a convolution or pooling."""
    axes = len(size)
    strides, pads = node.integers.get("strides", (1,) * axes), node.integers.get("pads", (0,) * (2 * axes))
    if len(kernel) != axes or len(strides) != axes or len(pads) != 2 * axes or min(strides) < 1 or min(kernel) < 1:
        raise ValueError(f"{node.kind} has a kernel, strides or pads that do not fit")
    if any(n != 1 for n in node.integers.get("dilations", ())) or node.integers.get("ceil_mode", (0,)) != (0,):
        raise ValueError(f"{node.kind} is of a kind that no export writes")
    if any(pad < 0 or pad > k for pad, k in zip(pads, kernel * 2, strict=True)):
        raise ValueError(f"{node.kind} pads by {pads}")
    return tuple((n + pads[i] + pads[i + axes] - kernel[i]) // strides[i] + 1 for i, n in enumerate(size))


def _conv(node: Node, given: list[Shape], _: _State) -> tuple[Shape, int]:
    batch, channels, *size = given[0]
    filters, taken, *kernel = given[1]
    (groups,) = node.integers.get("group", (1,))
    if groups < 1 or taken * groups != channels or filters % groups:
        raise ValueError(f"Conv takes {taken} channels of {channels} in {groups} groups")
    out = (batch, filters, *_windows(node, tuple(size), tuple(kernel)))
    return out, math.prod(out) * taken * math.prod(kernel)


def _pool(node: Node, given: list[Shape], _: _State) -> tuple[Shape, int]:
    batch, channels, *size = given[0]
    kernel = node.integers["kernel_shape"]
    out = (batch, channels, *_windows(node, tuple(size), kernel))
    return out, math.prod(out) * math.prod(kernel)


def _reduce(node: Node, given: list[Shape], state: _State) -> tuple[Shape, int]:
    rank = len(given[0])
    axes = {axis % rank for axis in _numbers(node, state, 1)}
    keep = node.integers.get("keepdims", (1,)) == (1,)
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(given[0]) if keep or axis not in axes)
    return shape, math.prod(given[0])


def _gemm(node: Node, given: list[Shape], _: _State) -> tuple[Shape, int]:
    (rows, inner), right = given[0], given[1]
    if node.integers.get("transA", (0,)) != (0,):
        raise ValueError("Gemm is of a kind that no export writes")
    taken, columns = right[::-1] if node.integers.get("transB", (0,)) == (1,) else right
    if taken != inner:
        raise ValueError(f"Gemm takes {taken} features of {inner}")
    return (rows, columns), rows * inner * columns


def _reshape(node: Node, given: list[Shape], state: _State) -> tuple[Shape, int]:
    wanted = [given[0][axis] if n == 0 else n for axis, n in enumerate(_numbers(node, state, 1))]
    known, total = math.prod(n for n in wanted if n != -1), math.prod(given[0])
    shape = tuple(total // known if n == -1 else n for n in wanted)
    if wanted.count(-1) > 1 or math.prod(shape) != total:
        raise ValueError(f"Reshape makes {shape} of {given[0]}")
    return shape, total


def _transpose(node: Node, given: list[Shape], _: _State) -> tuple[Shape, int]:
    perm = node.integers["perm"]
    if sorted(perm) != list(range(len(given[0]))):
        raise ValueError(f"Transpose orders {len(given[0])} axes as {perm}")
    return tuple(given[0][axis] for axis in perm), math.prod(given[0])


def _concat(node: Node, given: list[Shape], _: _State) -> tuple[Shape, int]:
    axis = node.integers["axis"][0] % len(given[0])
    if any(one[:axis] + one[axis + 1 :] != given[0][:axis] + given[0][axis + 1 :] for one in given):
        raise ValueError(f"Concat joins {given}")
    shape = (*given[0][:axis], sum(one[axis] for one in given), *given[0][axis + 1 :])
    return shape, math.prod(shape)


def _unsqueeze(node: Node, given: list[Shape], state: _State) -> tuple[Shape, int]:
    axes = _numbers(node, state, 1)
    rank = len(given[0]) + len(axes)
    new, rest = {axis % rank for axis in axes}, iter(given[0])
    return tuple(1 if axis in new else next(rest) for axis in range(rank)), math.prod(given[0])


def _pad(node: Node, given: list[Shape], state: _State) -> tuple[Shape, int]:
    pads, rank = _numbers(node, state, 1), len(given[0])
    if len(pads) != 2 * rank or min(pads) < 0:
        raise ValueError(f"Pad adds {pads}")
    shape = tuple(n + pads[axis] + pads[axis + rank] for axis, n in enumerate(given[0]))
    return shape, math.prod(shape)


def _slice(node: Node, given: list[Shape], state: _State) -> tuple[Shape, int]:
    shape = list(given[0])
    for start, end, axis, step in zip(*(_numbers(node, state, index) for index in range(1, 5)), strict=True):
        shape[axis] = len(range(shape[axis])[start:end:step])
    return tuple(shape), math.prod(shape)


_KNOWN = {
    **dict.fromkeys((*_SAME, *_WIDER), _transpose),  # their shapes are worked out before
    **dict.fromkeys(_REDUCE, _reduce),
    "Conv": _conv, "MaxPool": _pool, "AveragePool": _pool,
    "Gemm": _gemm, "Reshape": _reshape, "Transpose": _transpose, "Concat": _concat,
    "Unsqueeze": _unsqueeze, "Pad": _pad, "Slice": _slice,
}  # fmt: skip
