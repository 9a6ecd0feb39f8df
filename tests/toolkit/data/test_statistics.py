"""Plain statistics of the images: by hand on made images, and what spoiling does to them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from toolkit.data.patients import MODALITIES
from toolkit.data.reading.door import Images
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


def balls(*places, edge=2.0, radius=10.0, factor=2.0):
    """FLAIR and T2 of 100 x 90 x 80 voxels, brighter inside balls at some places, mm; the others are plain."""
    plain = 1000 + 50 * np.random.default_rng(0).normal(size=(100, 90, 80)).astype(np.float32)
    grid = edge * np.indices(plain.shape)
    inside = np.any([((grid - np.reshape(at, (3, 1, 1, 1))) ** 2).sum(0) < radius**2 for at in places], axis=0)
    made = images(plain)
    bright = np.where(inside, factor * plain, plain)
    voxels = {"flair": bright, "t1": plain, "t1ce": plain, "t2": bright}
    return replace(made, voxels=voxels, affine=np.diag([edge, edge, edge, 1.0]))


def scattered(made):
    return image_statistics(made)["scattered"]


TUMOUR = [(60.0, 90, 80), (68, 90, 80), (60, 98, 80)]  # three balls that overlap: one region
FAR = [(160.0, 90, 80), (60, 160, 120)]
BALL = 4 / 3 * np.pi * 10**3 / 1000  # ml


def test_what_is_far_from_the_other_lesions_is_scattered():
    assert scattered(balls(*TUMOUR)) == 0
    assert scattered(balls(*TUMOUR, FAR[0])) == pytest.approx(BALL, rel=0.2)
    assert scattered(balls(*TUMOUR, *FAR)) == pytest.approx(2 * BALL, rel=0.2)
    near = balls(*TUMOUR, (96, 90, 80))  # apart from the tumour, but not far
    assert scattered(near) == pytest.approx(0, abs=0.5)


def test_a_large_tumour_reaches_farther(monkeypatch):
    """Three balls of 25 mm in a row reach 65 mm from their middle; one of their volume, 196 ml, has a radius of 36."""
    large = balls((50.0, 90, 80), (90, 90, 80), (130, 90, 80), radius=25)
    assert scattered(large) == 0
    monkeypatch.setattr("toolkit.data.statistics.REACH_OF_BALL", 1.0)
    assert scattered(large) > 50


def test_only_what_both_flair_and_t2_show_is_a_lesion():
    made = balls(*TUMOUR, *FAR)
    for name in ("flair", "t2"):
        dark = made.voxels | {name: made.voxels["t1"]}
        assert scattered(replace(made, voxels=dark)) == 0
    assert scattered(balls(*TUMOUR, *FAR, factor=1.3)) == 0


def test_scattered_does_not_depend_on_axes_or_units():
    made = balls(*TUMOUR, *FAR)
    turned = {name: np.asfortranarray(v) for name, v in made.voxels.items()}
    shifted = {name: 7 * v - 500 for name, v in made.voxels.items()}
    background = dict.fromkeys(MODALITIES, -500)
    assert scattered(replace(made, voxels=turned)) == scattered(made)
    assert scattered(replace(made, voxels=shifted, background=background)) == pytest.approx(scattered(made), rel=0.01)
    slopes = dict.fromkeys(MODALITIES, -1.0)
    negative = {name: -v for name, v in made.voxels.items()}
    assert scattered(replace(made, voxels=negative, slopes=slopes)) == scattered(made)


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
