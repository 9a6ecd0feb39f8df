"""The part of a region around a voxel."""

from __future__ import annotations

import numpy as np

from deploy.report.region import _around


def test_corners_and_opposite_sides_are_not_neighbours() -> None:
    region = np.zeros((2, 2, 4), bool)
    region[0, 0, 3] = region[0, 1, 0] = region[1, 1, 3] = True  # next to each other in memory, or by an edge
    assert np.argwhere(_around(region, (0, 0, 3))).tolist() == [[0, 0, 3]]


def test_outside_there_is_none() -> None:
    assert not _around(np.eye(3, dtype=bool)[None], (0, 0, 1)).any()
