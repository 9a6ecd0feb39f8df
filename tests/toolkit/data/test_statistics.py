"""Plain statistics of the images: by hand on made images, and what spoiling does to them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from toolkit.data.door import Images
from toolkit.data.patients import MODALITIES
from toolkit.data.statistics import GLOBAL, OF_MODALITY, image_statistics

SHAPE = (60, 50, 40)


def images(values, slope=1.0, background=0.0, mask=None):
    """The same voxels as every modality, 2 x 1 x 1 mm, all in the mask unless one is given."""
    return Images(
        files={},
        seg=None,
        voxels=dict.fromkeys(MODALITIES, values),
        background=dict.fromkeys(MODALITIES, background),
        slopes=dict.fromkeys(MODALITIES, slope),
        mask=np.ones(values.shape, bool) if mask is None else mask,
        box=(slice(0, 60), slice(0, 50), slice(0, 40)),
        shape=values.shape,
        affine=np.diag([2.0, 1, 1, 1]),
        notes=(),
    )


@pytest.fixture
def textured():
    return (1000 + 100 * np.random.default_rng(0).normal(size=SHAPE)).astype(np.float32)


def test_values_by_hand(textured):
    found = image_statistics(images(textured))
    assert set(found) == {*GLOBAL, *(f"{name}_{key}" for name in MODALITIES for key in OF_MODALITY)}
    assert (found["width"], found["depth"], found["height"]) == (120, 50, 40)
    assert found["volume"] == pytest.approx(240)
    assert found["fill"] == found["t1_cover"] == 1
    assert found["t2_level"] == pytest.approx(3, abs=0.01)
    # Of a normal distribution: 99 % lie below 2.326, 95 % above -1.645; second differences have variance 1 + 4 + 1, and
    # half of their sizes lie below 0.6745 standard deviations.
    assert found["flair_bright"] == pytest.approx(1.2326, abs=0.02)
    assert found["flair_dark"] == pytest.approx(1 - 0.1645, abs=0.02)
    assert found["flair_noise"] == pytest.approx(0.6745 * 6**0.5, rel=0.05)
    assert found["flair_rim"] == pytest.approx(1, abs=0.02)


def test_mask_and_cover(textured):
    mask = np.zeros(SHAPE, bool)
    mask[10:50, 10:40, 5:35] = True
    half = np.where(mask & (np.arange(40) < 20), textured, 0)
    found = image_statistics(images(half, mask=mask))
    assert found["fill"] == pytest.approx(0.3)
    assert found["t1_cover"] == pytest.approx(0.5)
    bright = np.where(mask & ~ndimage.binary_erosion(mask, iterations=3), 3 * textured, textured * mask)
    assert image_statistics(images(bright, mask=mask))["t1_rim"] > 1.9


def test_units_change_the_level_alone(textured):
    plain = image_statistics(images(textured))
    for values, slope, background, shift in (
        (100 * textured, 1.0, 0.0, 2),
        (textured, 0.01, 0.0, -2),
        (textured - 500, 1.0, -500.0, 0),
        (textured * np.float32(1e30), 1e30, 0.0, 60),
    ):
        found = image_statistics(images(values, slope, background))
        for name, value in found.items():
            wanted = plain[name] + shift * name.endswith("_level")
            assert value == pytest.approx(wanted, rel=1e-3), name


def test_the_order_of_memory_hardly_matters(textured):
    plain = image_statistics(images(textured))
    for values in (np.asfortranarray(textured), textured[::-1].copy()[::-1]):
        found = image_statistics(replace(images(values), mask=np.ones_like(values, bool)))
        for name, value in found.items():
            assert value == pytest.approx(plain[name], rel=0.05), name


def test_noise_and_blur_show(textured):
    smooth = ndimage.gaussian_filter(textured, 1) * 3 - 2000
    plain = image_statistics(images(smooth))["t1_noise"]
    noisy = smooth + np.random.default_rng(1).normal(0, 50, SHAPE)
    assert image_statistics(images(noisy))["t1_noise"] > 1.5 * plain
    assert image_statistics(images(ndimage.gaussian_filter(smooth, 2)))["t1_noise"] < 0.5 * plain


def test_a_tiny_image_gives_numbers():
    values = np.ones((2, 2, 2), np.int16)
    assert all(np.isfinite(value) for value in image_statistics(images(values)).values())
    assert all(np.isfinite(value) for value in image_statistics(images(np.zeros((2, 2, 2)))).values())
