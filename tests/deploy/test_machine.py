"""What `grade info` says about TensorRT."""

from __future__ import annotations

import pytest

from deploy import machine
from deploy.machine import Gpu, runtimes

H100 = Gpu("NVIDIA H100 80GB HBM3", 79.6, "580.159", "9.0")
RTX4090 = Gpu("NVIDIA GeForce RTX 4090", 24.0, "580.159", "8.9")


@pytest.mark.parametrize(
    ("installed", "found", "devices", "reason"),
    [
        ((), (H100,), (), "not installed; pip install -c constraints.txt '.[rtx]'"),
        (("rtx",), (), (), "the driver shows no GPU; engines for RTX cards can be built all the same"),
        (("tensorrt",), (), (), "the driver shows no GPU"),
        (("rtx",), (H100,), (), "TensorRT for RTX does not run on NVIDIA H100 80GB HBM3; install TensorRT"),
        (("rtx",), (RTX4090,), ("cuda",), ""),
        (("tensorrt", "rtx"), (H100,), ("cuda",), ""),
    ],
)
def test_tensorrt_and_why_not(
    installed: tuple[str, ...],
    found: tuple[Gpu, ...],
    devices: tuple[str, ...],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "importable", lambda flavour: flavour in installed)
    (state,) = [state for state in runtimes(found) if state.name == "tensorrt"]
    assert state.devices == devices
    assert state.reason.startswith(reason)
    assert bool(state.reason) == bool(reason)
