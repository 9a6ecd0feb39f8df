"""Images known again by their content, without keeping them: a digest that tells nobody who they are of."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

import numpy as np

from toolkit.data.reading.door import Images

POINTS = 12  # along each axis
STEPS = 10_000  # of the largest voxel


def content_digest(images: Images) -> str:
    """SHA-256 of some voxels of each modality, hexadecimal.

    The same for the same voxels, whatever the file's name, compression, number type, scale or axes.

    Args:
        images: as the door lets them in.
    """
    digest = hashlib.sha256()
    for name, voxels in images.voxels.items():
        at = np.ix_(*(np.linspace(0, size - 1, POINTS + 2).round().astype(int)[1:-1] for size in voxels.shape))
        values = voxels[at].astype(np.float64) - float(images.background[name])
        largest = max(float(np.abs(values).max()), np.finfo(float).tiny)
        shares = values / largest * np.sign(images.slopes[name])
        digest.update(name.encode() + np.round(shares * STEPS).astype("<i2").tobytes())
    return digest.hexdigest()


def new_salt() -> str:
    """A salt for `salted`, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def salted(salt: str, contents: Iterable[str]) -> tuple[str, ...]:
    """Digests that tell only those who hold the images, and the salt, whether a patient is among them; sorted.

    Args:
        salt: of the model.
        contents: from `content_digest`.
    """
    return tuple(sorted(hashlib.sha256(f"{salt} {content}".encode()).hexdigest() for content in contents))
