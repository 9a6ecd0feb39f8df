"""Networks of a quarter of the channels or of fewer blocks: what is tested around a network does not depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PLANES = [16, 32, 64, 128]
SQUEEZE_BLOCKS = (2, 1, 1, 1)  # of an SE-ResNet-50's stages: with and without a convolution in the shortcut
DENSE_LAYERS = (2, 2, 2, 2)  # of a DenseNet-121's blocks
FEATURES = PLANES[-1]  # of a network of blocks without a bottleneck
DENSE_FEATURES = 128


@contextmanager
def narrow() -> Iterator[None]:
    """ResNets that are built inside, here or in processes forked from this one, are narrow; two others are short."""
    from toolkit.training.network import backbones

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "PLANES", PLANES)
        patch.setattr(backbones.DenseBackbone, "width", DENSE_FEATURES)
        for network, place, layers in (
            (backbones.SEResNet50, 0, SQUEEZE_BLOCKS),
            (backbones.DenseNet121, 2, DENSE_LAYERS),
        ):
            given = network.__init__.__defaults__
            patch.setattr(network.__init__, "__defaults__", (*given[:place], layers, *given[place + 1 :]))
        yield
