"""A run is continued only on what it began with: settings, split, grades, images. What changed is named."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.config import differences, parse_settings
from toolkit.data.cache import CachedScan, Scan
from toolkit.data.patients import CLASSES, Cohort
from toolkit.errors import CohortError, RunError, SettingsError
from toolkit.training.runs.run import Checkpoint, Run

SHOWN = 5  # of what changed
# What may change between two epochs: where and how fast a training computes, and what comes after it.
_FREE = (
    "data.cache",
    "training.device",
    "training.cuda_graph",
    "training.tensorboard",
    "training.tracker",
    "calibration.",
    "export.",
    "predict.",
    "hospital.",
    "commission.",
    "monitor.",
)


def check_checkpoint(run: Run, last: Checkpoint) -> None:
    """Refuse to continue with other settings or another split than the finished epochs had.

    Raises:
        RunError: something changed.
    """
    remedy = f"restore it, or train a new run: {len(last.history)} epochs were trained otherwise."
    if last.settings:
        try:
            before = parse_settings(last.settings)
        except SettingsError as error:
            raise RunError(f"{run.folder / 'last.pt'} cannot be used: {error}") from error
        changed = [
            f"{key} = {new!r}, which was {old!r}"
            for key, (old, new) in differences(before, run.settings).items()
            if not key.startswith(_FREE)
        ]
        if changed:
            raise RunError(f"{run.folder / 'settings.toml'} changed: {_some(changed)}; {remedy}")
    if last.split and last.split != run.split_text():
        changed = _moved(last.split, run.split_text())
        if changed:
            raise RunError(f"{run.folder / 'split.csv'} changed: {_some(changed)}; {remedy}")


def check_cohort(run: Run, now: Cohort, scans: Mapping[Path, Scan]) -> None:
    """Refuse to continue on patients whose grades or images are not those that the run began with.

    Args:
        run: begun earlier.
        now: all patients that the run's settings name today, with today's grades.
        scans: of each patient's folder, as far as they were read.

    Raises:
        CohortError: a patient changed or is gone.
    """
    grades = {patient.folder.absolute(): grade for patient, grade in zip(now.patients, now.grades, strict=True)}
    images = {folder.absolute(): scan.images for folder, scan in scans.items() if isinstance(scan, CachedScan)}
    changed = {}
    for row in run.split_rows():
        folder, name = Path(row["folder"]), row["patient"]
        if folder not in grades:
            changed[name] = f"{name} is no longer there"
        elif CLASSES[grades[folder]] != row["grade"]:
            changed[name] = f"the labels of {name} changed from {row['grade']} to {CLASSES[grades[folder]]}"
        elif row["images"] and images.get(folder, row["images"]) != row["images"]:
            changed[name] = f"the images of {name} changed"
    if changed:
        raise CohortError(
            f"run {run.folder} began with other patients: {_some(list(changed.values()))};"
            " restore them, or train a new run."
        )


def _moved(before: str, now: str) -> list[str]:
    """What differs between two texts of `split.csv`, a sentence a patient."""
    old, new = (_places(text) for text in (before, now))
    found = [f"{name} was added" for name in new.keys() - old.keys()]
    found += [f"{name} was removed" for name in old.keys() - new.keys()]
    for name in old.keys() & new.keys():
        cells = zip(old[name], new[name], strict=False)
        found += [f"{name} had {was} and has {is_now}" for was, is_now in cells if was != is_now]
        if len(old[name]) != len(new[name]):
            found.append(f"{name} has another number of rows")
    return sorted(found)


def _places(text: str) -> dict[str, tuple[str, ...]]:
    """Patient -> each cell with its column's name; a patient of folds is on both sides."""
    found: dict[str, tuple[str, ...]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        cells = tuple(f"{column} {value}" for column, value in row.items() if column != "patient")
        found[str(row.get("patient"))] = found.get(str(row.get("patient")), ()) + cells
    return found


def _some(sentences: Sequence[str]) -> str:
    more = f"; and {len(sentences) - SHOWN} more" if len(sentences) > SHOWN else ""
    return "; ".join(sentences[:SHOWN]) + more
