"""The self-test: a stored scan that a runtime answers as on the exporting machine before it grades anybody."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from time import perf_counter

import numpy as np

from deploy.model.folder import SELFTEST, Draft, Precision
from deploy.model.untrusted import read_arrays
from deploy.runtime import Array, Float64, Runtime, RuntimeOutputs, label
from toolkit.config import Grid
from toolkit.data.patients import CLASSES, MODALITIES
from toolkit.errors import ModelError
from toolkit.evaluation.calibration import Calibration

LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 5e-3}  # of the probability
SELFTEST_LOGITS = 1e-3  # float32 on another machine, as a share of the logits where these exceed 1
_BLOCK = 8  # voxels along the edge of the self-test's cubes


def write_selftest(folder: Path, reference: Runtime, grid: Grid) -> None:
    """Write `selftest.npz`: a synthetic scan, stored as coarse cubes, and the reference's logits for it.

    Args:
        folder: the model.
        reference: torch in float32.
        grid: of the scan.
    """
    cubes = tuple(ceil(n / _BLOCK) for n in grid.shape)
    coarse = np.random.default_rng(0).standard_normal((len(MODALITIES), *cubes), np.float32)
    logits = reference.infer(_fine(coarse, grid)[None]).logits[0]
    np.savez_compressed(folder / SELFTEST, coarse=coarse, logits=logits)


def run_selftest(model: Draft, runtime: Runtime, batch: int = 1) -> float:
    """Let a runtime answer the stored scan, as it will answer patients.

    Args:
        model: its self-test.
        runtime: to be tested.
        batch: in which prediction will run; each scan of it is compared.

    Returns:
        Seconds a scan; on a GPU they include the search for the fastest algorithms.

    Raises:
        ModelError: the answer differs from the exporting machine's by more than rounding explains.
    """
    scan, logits = load_selftest(model)
    scans = np.repeat(scan[None], batch, axis=0)  # (B, 4, X, Y, Z)
    start = perf_counter()
    outputs = runtime.infer(scans)
    seconds = (perf_counter() - start) / batch
    wanted = RuntimeOutputs(logits[None], outputs.features, outputs.evidence)
    if not finite(outputs):
        raise ModelError(
            f"self-test failed: {label(runtime)} gives values that are not finite; choose another runtime."
        )
    calibration = model.manifest.calibration
    off = float(np.abs(probability(outputs, calibration) - probability(wanted, calibration)).max())
    off_logit = float(np.abs(outputs.logits - logits).max())
    allowed_logit = SELFTEST_LOGITS * max(1.0, float(np.abs(logits).max())) if runtime.precision == "fp32" else np.inf
    if off > LIMITS[runtime.precision] or off_logit > allowed_logit:
        raise ModelError(
            f"self-test failed: {label(runtime)} differs by {off:.2g} in"
            f" probability and {off_logit:.2g} in a logit from the exporting machine, so it must not grade"
            " patients; check the driver and the libraries, or choose another runtime."
        )
    return seconds


def load_selftest(model: Draft) -> tuple[Array, Array]:
    """The stored scan, float32 (4, X, Y, Z), and the exporting machine's logits for it, (2,).

    Raises:
        ModelError: the file was altered.
    """
    grid = model.manifest.grid
    cubes = tuple(ceil(n / _BLOCK) for n in grid.shape)
    shapes = {"coarse": (len(MODALITIES), *cubes), "logits": (len(CLASSES),)}
    found = read_arrays(model.read(SELFTEST), shapes, str(model.folder / SELFTEST))
    return _fine(found["coarse"].astype(np.float32), grid), found["logits"].astype(np.float32)


def probability(outputs: RuntimeOutputs, calibration: Calibration) -> Float64:
    """Calibrated P(HGG) of each scan of a batch, (B,); the logits must be finite."""
    return calibration.probability(outputs.logit)


def finite(outputs: RuntimeOutputs) -> bool:
    """Whether every number of an answer is one."""
    return all(bool(np.isfinite(array).all()) for array in outputs)


def _fine(coarse: Array, grid: Grid) -> Array:
    """Coarse (4, x, y, z) -> (4, X, Y, Z), each value a cube of voxels."""
    scan = coarse
    for axis, n in enumerate(grid.shape, start=1):
        scan = np.repeat(scan, _BLOCK, axis=axis).take(range(n), axis=axis)
    return np.ascontiguousarray(scan)
