"""What of an ONNX file has to be known before it may be opened, read from protobuf's wire format without a copy.

Parsing 185 MB by `onnx` would make every prediction start a second later; here weights are skipped, not unpacked.
Source: protobuf.dev/programming-guides/encoding; onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_BITS = 7
MOST_NODES, MOST_NUMBERS = 20_000, 4_096
_INT64 = 7


@dataclass
class Tensor:
    """A weight: its shape, type, number of raw bytes, and its values if it is a short list of integers."""

    dims: tuple[int, ...]
    kind: int
    size: int
    integers: tuple[int, ...] | None


@dataclass
class Node:
    """An operator; `integers` are its attributes of whole numbers."""

    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: dict[str, tuple[int, ...]]


@dataclass
class Graph:
    """A file's graph.

    Attributes:
        nodes: in order.
        weights: by name.
        inputs: name -> type and shape, None for a free length.
        outputs: as the inputs.
    """

    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, tuple[int, tuple[int | None, ...]]] = field(default_factory=dict)
    outputs: dict[str, tuple[int, tuple[int | None, ...]]] = field(default_factory=dict)


def read_graph(content: bytes) -> Graph:
    """The graph of an ONNX file.

    Raises:
        ValueError: it is no ONNX file, or holds what no graph of ours has: functions, other domains, graphs inside
            nodes, sparse or external weights.
    """
    graphs: list[memoryview] = []
    for number, value in _fields(memoryview(content)):
        if number == 7:
            graphs.append(_bytes(value))
        elif number == 8 and (domain := _text(_first(_bytes(value), 1))) not in ("", "ai.onnx"):
            raise ValueError(f"it uses operators of '{domain[:40]}'")
        elif number in (20, 25):
            raise ValueError("it defines functions or a training of its own")
    if len(graphs) != 1:
        raise ValueError("it holds no graph")
    return _graph(graphs[0])


def _graph(data: memoryview) -> Graph:
    graph = Graph()
    for number, value in _fields(data):
        if number == 1:
            graph.nodes.append(_node(_bytes(value)))
            if len(graph.nodes) > MOST_NODES:
                raise ValueError(f"it has more than {MOST_NODES} nodes")
        elif number == 5:
            name, tensor = _tensor(_bytes(value))
            if name in graph.weights:
                raise ValueError(f"the weight {name[:40]} is there twice")
            graph.weights[name] = tensor
        elif number in (11, 12):
            name, kind, shape = _value(_bytes(value))
            (graph.inputs if number == 11 else graph.outputs)[name] = (kind, shape)
        elif number == 15:
            raise ValueError("it holds sparse weights")
    return graph


def _node(data: memoryview) -> Node:
    inputs, outputs, kind, domain = [], [], "", ""
    integers: dict[str, tuple[int, ...]] = {}
    for number, value in _fields(data):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
        elif number == 7:
            domain = _text(value)
        elif number == 5:
            name, numbers = _attribute(_bytes(value))
            integers[name] = numbers
    return Node(kind, domain, tuple(inputs), tuple(outputs), integers)


def _attribute(data: memoryview) -> tuple[str, tuple[int, ...]]:
    name, numbers = "", []
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number in (3, 8):
            numbers += _integers(value)
        elif number in (5, 6, 10, 11, 14, 15, 22, 23):
            raise ValueError(f"a node holds a graph, a tensor or a type in {name[:40] or 'an attribute'}")
    return name, tuple(numbers)


def _tensor(data: memoryview) -> tuple[str, Tensor]:
    name, kind, size = "", 0, 0
    dims: list[int] = []
    raw: memoryview | None = None
    listed: list[int] = []
    for number, value in _fields(data):
        if number == 1:
            dims += _integers(value)
        elif number == 2:
            kind = _integers(value)[0]
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _bytes(value)
            size = len(raw)
        elif number == 7:
            listed += _integers(value)
        elif number in (13, 14):
            raise ValueError(f"the weight {name[:40]} is in another file")
        elif number in (3, 4, 5, 6, 10, 11):
            raise ValueError(f"the weight {name[:40]} is not stored as raw bytes")
    integers: tuple[int, ...] | None = None
    if kind == _INT64 and len(dims) <= 1:
        integers = tuple(listed)
        if raw is not None:
            integers = tuple(memoryview(bytes(raw[: 8 * MOST_NUMBERS])).cast("q")) if not size % 8 else None
        size = size or 8 * len(listed)
    return name, Tensor(tuple(dims), kind, size, integers)


def _value(data: memoryview) -> tuple[str, int, tuple[int | None, ...]]:
    name, kind = "", 0
    shape: list[int | None] = []
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for inner, tensor in _fields(_bytes(value)):
                if inner != 1:
                    raise ValueError(f"{name[:40]} is no tensor")
                for part, given in _fields(_bytes(tensor)):
                    if part == 1:
                        kind = _integers(given)[0]
                    elif part == 2:
                        shape += [_dim(_bytes(dim)) for _, dim in _fields(_bytes(given))]
    return name, kind, tuple(shape)


def _dim(data: memoryview) -> int | None:
    for number, value in _fields(data):
        if number == 1:
            return _integers(value)[0]
    return None


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field: a whole number, or the bytes of anything else."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("it is no ONNX file")
        if at + size > end:
            raise ValueError("it is no ONNX file, or cut off")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, _BITS):
        if at >= len(data):
            raise ValueError("it is no ONNX file, or cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("it is no ONNX file")


def _integers(value: memoryview | int) -> list[int]:
    """One number, or a packed list of them; signed."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        one, at = _varint(value, at)
        found.append(_signed(one))
        if len(found) > MOST_NUMBERS:
            raise ValueError(f"a list of more than {MOST_NUMBERS} numbers")
    return found


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >> 63 else value


def _bytes(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is no ONNX file")
    return value


def _text(value: memoryview | int) -> str:
    return bytes(_bytes(value)[:1000]).decode(errors="replace")


def _first(data: memoryview, wanted: int) -> memoryview:
    return next((_bytes(value) for number, value in _fields(data) if number == wanted), memoryview(b""))
