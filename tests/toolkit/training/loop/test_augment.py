from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from toolkit.config import AugmentSettings
from toolkit.training.loop.augment import Pose, draw_pose, random_kept, random_matrix, sampling_matrix, warp


def pose(
    count: int = 1,
    rotation: tuple[float, float, float] = (0, 0, 0),
    zoom: float = 1,
    translation: tuple[float, float, float] = (0, 0, 0),
    flip: bool = False,
) -> Pose:
    return Pose(
        torch.tensor([rotation] * count, dtype=torch.float32),
        torch.full((count,), float(zoom)),
        torch.tensor([translation] * count, dtype=torch.float32),
        torch.full((count,), flip),
    )


def move(scans: Tensor, how: Pose) -> Tensor:
    return warp(scans, sampling_matrix(how, torch.tensor(scans.shape[2:], dtype=torch.float32)))


def noise(*shape: int) -> Tensor:
    return torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(16, 32, 8), (13, 18, 11)])
def test_identity_changes_nothing_but_rounding(shape: tuple[int, int, int]) -> None:
    scans = noise(*shape)
    torch.testing.assert_close(move(scans, pose(2)), scans, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(16, 32, 8), (13, 18, 11)])
def test_flip_is_left_right_alone(shape: tuple[int, int, int]) -> None:
    scans = noise(*shape)
    torch.testing.assert_close(move(scans, pose(2, flip=True)), scans.flip(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("axis, dims", [(0, (3, 4)), (1, (4, 2)), (2, (2, 3))])
def test_quarter_turn_of_a_cube(axis: int, dims: tuple[int, int]) -> None:
    scans = noise(12, 12, 12)
    angles = [0.0, 0.0, 0.0]
    angles[axis] = math.pi / 2
    moved = move(scans, pose(2, rotation=(angles[0], angles[1], angles[2])))
    torch.testing.assert_close(moved, torch.rot90(scans, 1, dims), atol=1e-4, rtol=0)


def test_quarter_turn_is_rigid_on_a_long_grid() -> None:
    scans = torch.zeros(1, 1, 24, 12, 10)
    scans[0, 0, 12 + 3, 6, 5] = 1  # 3.5 voxels right of the centre, half a voxel before it
    moved = move(scans, pose(rotation=(0, 0, math.pi / 2)))
    # (3.5, 0.5) turns to (-0.5, 3.5): x = 11.5 - 0.5, y = 5.5 + 3.5
    assert np.unravel_index(int(moved.argmax()), (24, 12, 10)) == (11, 9, 5)
    torch.testing.assert_close(moved.max(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_translation_by_whole_voxels() -> None:
    scans = noise(10, 20, 5)
    moved = move(scans, pose(2, translation=(0.3, -0.1, 0.2)))  # 3, -2 and 1 voxels
    expected = torch.zeros_like(scans)
    expected[:, :, 3:, :-2, 1:] = scans[:, :, :-3, 2:, :-1]
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)


def test_everything_at_once_against_scipy() -> None:
    scans = noise(14, 20, 17)
    how = pose(2, rotation=(0.2, -0.15, 0.1), zoom=1.07, translation=(0.05, -0.08, 0.03), flip=True)
    moved = move(scans, how).numpy()
    size = np.array(scans.shape[2:])
    centre = (size - 1) / 2
    # The forward map, built from scratch: flip, turn about x, y, z, enlarge, shift. SciPy wants its inverse.
    cx, sx, cy, sy, cz, sz = (f(a) for a in (0.2, -0.15, 0.1) for f in (np.cos, np.sin))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    inverse = np.linalg.inv(1.07 * z @ y @ x @ np.diag([-1, 1, 1]))
    offset = centre - inverse @ (centre + np.array([0.05, -0.08, 0.03]) * size)
    for b in range(2):
        for c in range(3):
            expected = ndimage.affine_transform(scans[b, c].numpy(), inverse, offset, order=1, mode="grid-constant")
            np.testing.assert_allclose(moved[b, c], expected, atol=2e-4)


def test_each_scan_moves_by_its_own_pose() -> None:
    scans = noise(16, 16, 16)
    both = Pose(*(torch.cat([a, b]) for a, b in zip(pose(flip=True), pose(translation=(0.25, 0, 0)), strict=True)))
    moved = move(scans, both)
    torch.testing.assert_close(moved[0], scans[0].flip(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[1, :, 4:], scans[1, :, :-4], atol=1e-4, rtol=0)


def test_draws_stay_within_their_limits_and_fill_them() -> None:
    settings = AugmentSettings(rotation=10, zoom=0.08, translation=0.05, flips=True)
    drawn = draw_pose(4000, settings, torch.Generator().manual_seed(3))
    for values, limit in (
        (drawn.rotation, math.radians(10)),
        (drawn.zoom - 1, 0.08),
        (drawn.translation, 0.05),
    ):
        assert values.abs().max() <= limit * 1.0001
        assert values.min() < -0.95 * limit
        assert values.max() > 0.95 * limit
    assert 0.46 < drawn.flip.float().mean() < 0.54  # 5 standard deviations
    assert not draw_pose(100, settings.model_copy(update={"flips": False}), torch.Generator()).flip.any()


def test_same_generator_same_scans() -> None:
    scans, settings = noise(16, 16, 16), AugmentSettings()
    first, second, other = (
        warp(scans, random_matrix(len(scans), scans.shape[2:], settings, torch.Generator().manual_seed(s)))
        for s in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_nothing_to_do_changes_nothing() -> None:
    scans = noise(13, 9, 7)
    settings = AugmentSettings(rotation=0, zoom=0, translation=0, flips=False)
    moved = warp(scans, random_matrix(len(scans), scans.shape[2:], settings, torch.Generator()))
    torch.testing.assert_close(moved, scans, atol=1e-5, rtol=0)


def test_every_scan_loses_one_modality() -> None:
    kept = random_kept(400, 4, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(kept.sum(dim=1), torch.full((400,), 3.0))
    assert ((kept == 0).sum(dim=0) > 70).all()  # each about 100 times


def test_share_of_scans_that_lose_a_modality() -> None:
    left = random_kept(4000, 4, 0.25, torch.Generator().manual_seed(0)).sum(dim=1)
    assert 0.215 < (left == 3).float().mean().item() < 0.285  # 5 standard deviations
    assert ((left == 3) | (left == 4)).all()


def test_no_dropout_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(random_kept(3, 4, 0.0, generator), torch.ones(3, 4))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_moves_as_the_cpu_does() -> None:
    scans, settings = noise(24, 16, 20), AugmentSettings()
    matrix = random_matrix(len(scans), scans.shape[2:], settings, torch.Generator().manual_seed(1))
    cpu, gpu = (warp(scans.to(device), matrix.to(device)).cpu() for device in ("cpu", "cuda"))
    torch.testing.assert_close(cpu, gpu, atol=1e-3, rtol=0)
