"""The same person or the same images under several ids: together they stay on one side of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from toolkit.data.layout import person_folder
from toolkit.data.patients import CLASSES, Cohort, Patient
from toolkit.data.site import subject_of
from toolkit.errors import CohortError

POINTS = 8  # along each axis
SAME_CONTENT = 0.999  # correlation; a time point of the same subject, registered, stays under 0.95

Print: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]  # (D,), of unit length


def content_print(images: Sequence[np.ndarray[Any, Any]], slopes: Sequence[float] = (1, 1, 1, 1)) -> Print:
    """A few voxels of each modality by which images are known again, whatever type, scale or axes they are stored in.

    Args:
        images: the modalities in a fixed order, each (X, Y, Z), RAS axes, cut to the same anatomy.
        slopes: factors of their headers; the signs count.
    """
    parts = []
    for image, slope in zip(images, slopes, strict=True):
        at = np.ix_(*(np.linspace(0, size - 1, POINTS + 2).round().astype(int)[1:-1] for size in image.shape))
        values = image[at].astype(np.float64).ravel()
        values /= np.copysign(max(np.abs(values).max(), np.finfo(float).tiny), slope)  # squares do not overflow
        values -= values.mean()
        parts.append(values / max(np.linalg.norm(values), np.finfo(float).tiny))
    found: Print = np.concatenate(parts).astype(np.float32) / np.float32(np.sqrt(len(parts)))
    return found


def same_content(prints: Sequence[Print]) -> list[tuple[int, ...]]:
    """Groups of two or more positions whose images are the same."""
    table = np.array(prints, np.float32)  # (N, D)
    groups = Groups(len(table))
    for row in range(len(table)):
        for twin in np.flatnonzero(table[row + 1 :] @ table[row] > SAME_CONTENT) + row + 1:
            groups.join(row, int(twin))
    return groups.shared()


def persons(cohort: Cohort, twins: Sequence[Sequence[int]]) -> list[int]:
    """One number for each patient; the same number means the same person.

    Args:
        cohort: patients and grades.
        twins: groups of positions with the same images.

    Raises:
        CohortError: one person has two grades.
    """
    groups = Groups(len(cohort))
    first: dict[str, int] = {}
    for position, patient in enumerate(cohort.patients):
        groups.join(first.setdefault(_person(patient), position), position)
    for group in twins:
        for position in group[1:]:
            groups.join(group[0], position)
    for group in groups.shared():
        if len({cohort.grades[position] for position in group}) > 1:
            raise CohortError(
                f"{_conflict(cohort, group)} are one person (one subject, or the same images) with two grades; "
                "correct the labels."
            )
    return groups.keys()


def _person(patient: Patient) -> str:
    """The person whose images a folder holds.

    A name that is a mere number, as BraTS 2013 has them, tells persons apart only together with the folder above.
    """
    name = patient.folder.name
    if (known := subject_of(name)) != name:
        return known
    if session_of := person_folder(patient.folder):
        return str(session_of)
    if name.isdecimal():
        above = patient.folder.parent.name
        return f"{above.upper()}/{name}" if above.upper() in CLASSES else patient.id
    return name


def _conflict(cohort: Cohort, group: Sequence[int]) -> str:
    pair = [next(position for position in group if cohort.grades[position] == grade) for grade in (0, 1)]
    return " and ".join(cohort.patients[position].id for position in sorted(pair))


class Groups:
    """Positions 0 to N - 1, joined to groups (a union-find)."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def join(self, one: int, other: int) -> None:
        """From now on these two, and all that each is joined to, are one group."""
        one, other = sorted((self._root(one), self._root(other)))
        self._above[other] = one

    def keys(self) -> list[int]:
        """The smallest position of each position's group."""
        return [self._root(position) for position in range(len(self._above))]

    def shared(self) -> list[tuple[int, ...]]:
        """The groups of two or more, each in ascending order."""
        found: dict[int, list[int]] = {}
        for position, key in enumerate(self.keys()):
            found.setdefault(key, []).append(position)
        return [tuple(group) for group in found.values() if len(group) > 1]

    def _root(self, position: int) -> int:
        while self._above[position] != position:
            position = self._above[position]
        return position
