import numpy as np
import pytest
from scipy import ndimage

from toolkit.data.resample import Resampler, interpolation_matrix


def test_same_spacing_is_the_identity_with_zeros_around():
    matrix = interpolation_matrix(4, 1.0, 6, 1.0)
    np.testing.assert_array_equal(matrix, np.eye(6, 4, -1))


def test_finer_grid_is_plain_linear_interpolation():
    # Centres of 4 voxels of 0.5 mm over 2 voxels of 1 mm lie at -0.25, 0.25, 0.75, 1.25 source voxels.
    matrix = interpolation_matrix(2, 1.0, 4, 0.5)
    np.testing.assert_allclose(matrix, [[0.75, 0], [0.75, 0.25], [0.25, 0.75], [0, 0.75]], atol=1e-7)


def test_coarser_grid_averages_with_a_triangle():
    # Scale 2: triangle of half-width 2 around the centre, weights 1 - |distance| / 2, normalised.
    matrix = interpolation_matrix(5, 1.0, 1, 2.0)
    np.testing.assert_allclose(matrix, [[0, 0.25, 0.5, 0.25, 0]], atol=1e-7)


@pytest.mark.parametrize(("edge", "out_edge"), [(1.0, 1.5), (1.0, 3.0), (0.9, 1.5), (5.0, 1.5)])
def test_rows_inside_sum_to_one(edge, out_edge):
    matrix = interpolation_matrix(60, edge, 20, out_edge)
    reach = max(edge, out_edge)
    centres = (np.arange(20) - 9.5) * out_edge
    inside = np.abs(centres) + reach < 59 / 2 * edge
    assert inside.any()
    np.testing.assert_allclose(matrix.sum(axis=1)[inside], 1, atol=1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_smooth_volume_against_scipy(order):
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 36, 44)), indexing="ij")
    smooth = np.exp(-sum(axis**2 for axis in axes) / 0.18)  # vanishes at the border
    volume = np.array(smooth, np.float32, order=order)
    shape, spacing = (30, 28, 32), 0.8
    matrices = [interpolation_matrix(n, 1.0, m, spacing) for n, m in zip(volume.shape, shape, strict=True)]
    centres = [(n - 1) / 2 + (np.arange(m) - (m - 1) / 2) * spacing for n, m in zip(volume.shape, shape, strict=True)]
    expected = ndimage.map_coordinates(smooth, np.meshgrid(*centres, indexing="ij"), order=1, mode="constant")
    np.testing.assert_allclose(Resampler(volume, matrices)(volume), expected, atol=1e-6)


def test_any_memory_order_gives_the_same():
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(20, 30, 25)).astype(np.float32)
    matrices = [interpolation_matrix(n, 1.0, 17, 1.5) for n in volume.shape]
    expected = np.einsum("ai,bj,ck,ijk->abc", *(m.astype(float) for m in matrices), volume.astype(float))
    for axes in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        stored = np.ascontiguousarray(volume.transpose(axes)).transpose(np.argsort(axes))
        np.testing.assert_allclose(Resampler(stored, matrices)(stored), expected, atol=1e-5)
    turned = volume[::-1, :, ::-1]
    mirrored = Resampler(turned, matrices)(turned)
    np.testing.assert_allclose(mirrored, expected[::-1, :, ::-1], atol=1e-5)
