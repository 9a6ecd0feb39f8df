"""A cohort made ready for training: labels, preprocessed scans, duplicates, splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.arrays import Float32
from toolkit.config import DataSettings
from toolkit.data.cache import cached_scans
from toolkit.data.folds import split_folds
from toolkit.data.labels import read_cohort
from toolkit.data.leakage import content_print, same_content
from toolkit.data.patients import Cohort
from toolkit.data.split import Split, split_cohort
from toolkit.errors import SettingsError
from toolkit.evaluation.sites import site_only
from toolkit.training.scans import TrainingData
from toolkit.training.watch import Watcher


@dataclass(frozen=True)
class Prepared:
    """A cohort, read and preprocessed.

    Attributes:
        cohort: everybody with a grade.
        validation: who validates, where that is a folder of its own.
        scans: of each patient's folder.
        twins: groups of positions that hold the same images, in `cohort` followed by `validation`.
    """

    cohort: Cohort
    validation: Cohort | None
    scans: dict[Path, Float32]
    twins: Sequence[Sequence[int]]

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
        """So many splits, in which everybody validates once."""
        return split_folds(self.cohort, data, count, seed, self.twins)


def prepare(data: DataSettings, watcher: Watcher) -> Prepared:
    """Read and preprocess everybody whom the settings name; tell of duplicates and of what the site gives away.

    Raises:
        SettingsError: no cohort is named.
        CohortError: the cohort, its labels or its patients cannot be used.
    """
    if data.cohort is None:
        raise SettingsError(
            'no cohort is named: write [data] cohort = "folder" into grade.toml, or --set data.cohort=folder.'
        )
    cohort, validation = _cohorts(data.cohort, data, watcher)
    prepared = Prepared(cohort, validation, {}, ())
    everyone = prepared.everyone
    scans = read_scans(everyone, data, watcher)  # before the run folder: a cohort that cannot be read leaves none
    twins = same_content([content_print(list(scan)) for scan in scans.values()])
    for group in twins:
        names = ", ".join(everyone.patients[position].id for position in group)
        watcher.note(f"{names} hold the same images; they stay on one side of the split.")
    _tell_site(everyone, watcher)
    return replace(prepared, scans=scans, twins=twins)


def _cohorts(folder: Path, data: DataSettings, watcher: Watcher) -> tuple[Cohort, Cohort | None]:
    """Everybody with a grade, and who validates where that is a folder of its own."""
    cohorts = [read_cohort(folder, data.labels)]
    if isinstance(data.validation, Path):
        cohorts.append(read_cohort(data.validation, data.labels))
    for cohort in cohorts:
        for sentence in cohort.notes:
            watcher.note(sentence)
    return cohorts[0], cohorts[1] if len(cohorts) > 1 else None


def read_scans(cohort: Cohort, data: DataSettings, watcher: Watcher) -> dict[Path, Float32]:
    """The scan of each patient's folder, in the order of the cohort."""
    with watcher.reading(len(cohort)) as on_done:
        scans = cached_scans(cohort.patients, data.grid, data.cache, on_done)
    return {patient.folder: scan for patient, scan in zip(cohort.patients, scans, strict=True)}


def training_data(cohort: Cohort, scans: Mapping[Path, Float32]) -> TrainingData:
    """A cohort with its scans, which are looked up by the patients' folders."""
    return TrainingData(cohort, [scans[patient.folder] for patient in cohort.patients])


def _tell_site(cohort: Cohort, watcher: Watcher) -> None:
    site = site_only(cohort.grades, cohort.sites)
    if site:
        watcher.note(site.sentence)
        if site.warning:
            watcher.note(site.warning)
