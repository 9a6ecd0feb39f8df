"""Faults and oddities of patients, one kind a case: `CASES`, by category.

`python -m tests.toolkit.data.faults OUT` writes them all, with the expected outcomes in OUT/expected.csv.
"""

from . import geometry, headers, names, places, streams, voxels
from .build import MODALITIES, Case, drafted

CASES: dict[str, list[Case]] = {
    "gzip": streams.CASES,
    "header": headers.CASES,
    "geometry": geometry.CASES,
    "voxels": voxels.CASES,
    "names": names.CASES,
    "files": places.CASES,
}

__all__ = ["CASES", "MODALITIES", "Case", "drafted"]
