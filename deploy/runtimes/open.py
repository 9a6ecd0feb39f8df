"""Opens the runtime that was asked for, and imports no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from deploy.machine import user_cache
from deploy.model.folder import Draft
from deploy.runtime import Choice, Runtime
from toolkit.data.workers.slots import Slots
from toolkit.errors import RuntimeUnavailable
from toolkit.machine import DEVICE
from toolkit.plain import read_json

if TYPE_CHECKING:
    from deploy.runtimes.card import Card


def open_runtime(model: Draft, choice: Choice) -> Runtime:
    """Open a model in a runtime.

    Args:
        model: its graph or weights are checked against their hash and loaded.
        choice: only `auto` leaves a choice; what was chosen, and why, is in the runtime's `chosen`.

    Raises:
        RuntimeUnavailable: the runtime or device asked for is not there.
        ModelError: the model was altered, or cannot be loaded.
    """
    if not re.fullmatch(DEVICE, choice.device):
        raise RuntimeUnavailable(f"device '{choice.device}' is unknown; write auto, cpu, cuda or cuda:N.")
    if choice.name == "auto":
        return _open_auto(model, choice)
    if choice.name == "onnx":
        from deploy.runtimes.onnx import open_onnx

        return open_onnx(model, choice)
    if choice.name == "torch":
        from deploy.runtimes.torch import open_torch

        return open_torch(model, choice)
    if choice.name == "tensorrt":
        from deploy.runtimes.tensorrt import open_tensorrt

        return open_tensorrt(model, choice)
    raise RuntimeUnavailable(f"runtime '{choice.name}' is unknown; choose one of auto, onnx, tensorrt, torch.")


def _open_auto(model: Draft, choice: Choice) -> Runtime:
    """ONNX Runtime, or TensorRT where `grade bench` found that faster; which, and why, is in `chosen`."""
    on_onnx = choice._replace(name="onnx")
    if choice.device == "cpu" or fastest_runtime(model) == "onnx":
        return open_runtime(model, on_onnx)
    try:
        runtime, reason = open_runtime(model, choice._replace(name="tensorrt")), "the fastest here, by grade bench"
    except RuntimeUnavailable as error:
        runtime, reason = open_runtime(model, on_onnx), f"TensorRT was the fastest by grade bench, but {error}"
    runtime.chosen = f"{runtime.chosen.rstrip('.')}; {reason.rstrip('.')}."
    return runtime


def open_card(runtime: Runtime, batch: int, slots: Slots) -> Card:
    """What makes scans where a runtime answers them; it is compared with the processor's work first.

    Args:
        runtime: opened, one that `makes_scans`.
        batch: scans at once.
        slots: where the boxes come from.

    Raises:
        RuntimeUnavailable: the card has no room, or prepares scans differently.
    """
    from deploy.runtimes.card import Card
    from deploy.runtimes.onnx import OnnxRuntime

    card = Card(cast(OnnxRuntime, runtime), batch, slots)
    card.prove()
    return card


def makes_scans(runtime: Runtime) -> bool:
    """Whether scans can be made where a runtime answers them."""
    return runtime.name == "onnx" and runtime.device != "cpu"


def fastest_runtime(model: Draft) -> str:
    """What `grade bench` found the fastest here for this model; `onnx` where it was not run."""
    try:
        found: Any = read_json(bench_file(model))
    except (OSError, ValueError, RuntimeUnavailable):  # without a home folder nothing was kept
        return "onnx"
    name = found.get("fastest") if isinstance(found, dict) else None
    return name if name in ("onnx", "tensorrt") else "onnx"


def bench_file(model: Draft) -> Path:
    """Where `grade bench` keeps what it measured of a model for this user."""
    return user_cache("bench") / f"{model.fingerprint}.json"
