"""The part of a region around a voxel, against SciPy's labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label

from deploy.report.region import _around


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (30, 24, 27)])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_the_part_is_that_of_scipy(shape: tuple[int, int, int], share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        region = rng.random(shape) < share
        voxel = tuple(int(rng.integers(n)) for n in shape)
        parts, _ = label(region)
        wanted = (parts == parts[voxel]) & region[voxel]
        found = _around(region, voxel)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, wanted)


def test_corners_and_opposite_sides_are_not_neighbours() -> None:
    region = np.zeros((2, 2, 4), bool)
    region[0, 0, 3] = region[0, 1, 0] = region[1, 1, 3] = True  # next to each other in memory, or by an edge
    assert _around(region, (0, 0, 3)).sum() == 1


def test_pages_load_no_scipy_routines() -> None:
    code = "import sys, deploy.report.pages; print(*(name for name in sys.modules if name.startswith('scipy.ndimage')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert not done.stdout.strip()
