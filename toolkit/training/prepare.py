"""A cohort made ready for training: labels, preprocessed scans, duplicates, splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.config import DataSettings
from toolkit.data.cache import CachedScan, Scan, cached_scans, voxels_of
from toolkit.data.cohort.folds import split_folds
from toolkit.data.cohort.leakage import content_print, same_content
from toolkit.data.cohort.split import Split, split_cohort
from toolkit.data.labels import read_cohort
from toolkit.data.patients import Cohort
from toolkit.errors import SettingsError
from toolkit.evaluation.sites import site_only
from toolkit.training.loop.scans import TrainingData
from toolkit.training.watch import Watcher


@dataclass(frozen=True)
class Prepared:
    """A cohort, read and preprocessed.

    Attributes:
        cohort: all patients with a grade.
        validation: who validates, where that is a folder of its own.
        scans: of each patient's folder.
        twins: groups of positions that hold the same images, in `cohort` followed by `validation`.
    """

    cohort: Cohort
    validation: Cohort | None
    scans: dict[Path, Scan]
    twins: Sequence[Sequence[int]]

    @property
    def images(self) -> dict[Path, str]:
        """By which the content of each patient's images is known again, by the folder's absolute path."""
        entries = ((folder, scan) for folder, scan in self.scans.items() if isinstance(scan, CachedScan))
        return {folder.absolute(): scan.images for folder, scan in entries}

    @property
    def everyone(self) -> Cohort:
        """Who trains or validates."""
        return self.cohort.joined(self.validation) if self.validation else self.cohort

    def without_scans(self) -> Prepared:
        """What another process is given: it opens the scans itself."""
        return replace(self, scans={})

    def with_scans(self, data: DataSettings, watcher: Watcher) -> Prepared:
        """Undo `without_scans`; the cache has them.

        Raises:
            CohortError: as `prepare`.
        """
        return replace(self, scans=read_scans(self.everyone, data, watcher))

    def split(self, data: DataSettings, seed: int) -> Split:
        """Training and validation by share or folder."""
        return split_cohort(self.cohort, data, seed, self.validation, self.twins)

    def folds(self, data: DataSettings, count: int, seed: int) -> list[Split]:
        """The splits, in which every patient validates once."""
        return split_folds(self.cohort, data, count, seed, self.twins)


def prepare(data: DataSettings, watcher: Watcher) -> Prepared:
    """Read and preprocess all patients that the settings name; tell of duplicates and of what the site gives away.

    Raises:
        SettingsError: no cohort is named.
        CohortError: the cohort, its labels or its patients cannot be used.
    """
    if data.cohort is None:
        raise SettingsError(
            'no cohort is named: write [data] cohort = "folder" into grade.toml, or --set data.cohort=folder.'
        )
    cohort, validation = _cohorts(data.cohort, data)
    for sentence in (*cohort.notes, *(validation.notes if validation else ())):
        watcher.note(sentence)
    prepared = Prepared(cohort, validation, {}, ())
    everyone = prepared.everyone
    scans = read_scans(everyone, data, watcher)  # before the run folder: a cohort that cannot be read leaves none
    twins = same_content([content_print(list(voxels_of(scan))) for scan in scans.values()])
    for group in twins:
        names = ", ".join(everyone.patients[position].id for position in group)
        watcher.note(f"{names} hold the same images; they stay on one side of the split.")
    _tell_site(everyone, watcher)
    return replace(prepared, scans=scans, twins=twins)


def named_cohort(data: DataSettings) -> Cohort | None:
    """Everybody whom the settings name, with today's grades; None where they name no cohort.

    Raises:
        CohortError: the cohort or its labels cannot be used.
    """
    if data.cohort is None:
        return None
    cohort, validation = _cohorts(data.cohort, data)
    return cohort.joined(validation) if validation else cohort


def _cohorts(folder: Path, data: DataSettings) -> tuple[Cohort, Cohort | None]:
    """All patients with a grade, and who validates where that is a folder of its own."""
    validation = read_cohort(data.validation, data.labels) if isinstance(data.validation, Path) else None
    return read_cohort(folder, data.labels), validation


def read_scans(cohort: Cohort, data: DataSettings, watcher: Watcher) -> dict[Path, Scan]:
    """The scan of each patient's folder, in the order of the cohort."""
    with watcher.reading(len(cohort)) as on_done:
        scans = cached_scans(cohort.patients, data.grid, data.cache, on_done)
    return {patient.folder: scan for patient, scan in zip(cohort.patients, scans, strict=True)}


def training_data(cohort: Cohort, scans: Mapping[Path, Scan]) -> TrainingData:
    """A cohort with its scans, which are looked up by the patients' folders."""
    return TrainingData(cohort, [scans[patient.folder] for patient in cohort.patients])


def _tell_site(cohort: Cohort, watcher: Watcher) -> None:
    site = site_only(cohort.grades, cohort.sites)
    if site:
        watcher.note(site.sentence)
        if site.warning:
            watcher.note(site.warning)
