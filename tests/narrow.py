"""Networks of a quarter of the channels: what is tested around a network does not depend on its width."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PLANES = [16, 32, 64, 128]
FEATURES = PLANES[-1]  # of a network of blocks without a bottleneck


@contextmanager
def narrow() -> Iterator[None]:
    """ResNets that are built inside, here or in processes that are forked from this one, are narrow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.training.network.backbones.PLANES", PLANES)
        yield
