"""A synthetic glioma cohort in BraTS 2018's layout, with a difficulty knob.

Every patient has a latent aggressiveness, normal with variance 1 about -d/2 (LGG) or +d/2 (HGG). Enhancement, necrosis,
oedema, texture, border and T2-FLAIR mismatch depend on the latent and on noise, on the grade only through it. So
no grader can beat one that sees the latent, whose AUC is Phi(d / sqrt 2) (binormal model, Hanley 1988). With

    d = 3.1 (1 - difficulty)

that is 0.986 at difficulty 0, 0.863 at 0.5, 0.67 at 0.8 and 0.5 at 1, where the images hold nothing about the grade.

Site `b` has another scanner: more noise, less contrast, less sharp images, and fewer HGG. The same seed and number are
the same person at both sites.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from math import floor
from pathlib import Path

import imagecodecs
import nibabel as nib
import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.arrays import Voxels
from toolkit.data.layout import PHANTOM_MARK
from toolkit.data.patients import CLASSES, MODALITIES
from toolkit.data.phantom.brain import EXTENT, atlas, draw_brain
from toolkit.data.phantom.image import Scanner, draw_images
from toolkit.data.phantom.tumour import draw_traits, grow_tumour
from toolkit.errors import CohortError, SettingsError
from toolkit.files import write_file
from toolkit.machine import most_readers

SITES = {
    "a": Scanner(),
    "b": Scanner(noise=3.0, contrast=(0.6, 0.7, 0.4, 0.6), blur=1.0),
}
SHARES = {"a": 210 / 285, "b": 0.4}  # of HGG; that of site a is BraTS 2018's
SEPARATION = 3.1  # d at difficulty 0
NUMBERS = 10_000  # patients a seed can give


@dataclass(frozen=True)
class PhantomSettings:
    """What cohort to make.

    Attributes:
        patients: how many, 1..10000; a larger cohort of the same seed holds the smaller one.
        seed: 0 or more.
        difficulty: 0 (the grade shows) .. 1 (nothing tells it).
        hgg_share: share of HGG, 0..1; BraTS 2018's by default.
        spacing: mm, voxel edge, 1..4; the field of view stays that of BraTS.
        site: whose scanner takes the images, one of `SITES`.

    Raises:
        SettingsError: one of these is out of range.
    """

    patients: int
    seed: int
    difficulty: float
    hgg_share: float = SHARES["a"]
    spacing: float = 1.0
    site: str = "a"

    def __post_init__(self) -> None:
        limits = {
            "patients": (1, NUMBERS),
            "seed": (0, 2**32 - 1),
            "difficulty": (0, 1),
            "hgg_share": (0, 1),
            "spacing": (1, 4),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"phantom {name} = {getattr(self, name)}: choose a value from {low} to {high}.")
        if self.site not in SITES:
            raise SettingsError(f"phantom site = {self.site}: choose one of {', '.join(SITES)}.")


@dataclass(frozen=True)
class PhantomPatient:
    """One patient before any image is made.

    Attributes:
        id: `Phantom_<seed>_<number>`, at site b `PhantomB_<seed>_<number>`.
        number: 0..9999, tells nothing of the grade.
        grade: 0 LGG, 1 HGG.
        latent: aggressiveness.
    """

    id: str
    number: int
    grade: int
    latent: float


def plan_cohort(settings: PhantomSettings) -> tuple[PhantomPatient, ...]:
    """Who will be in the cohort: round(patients * hgg_share) HGG, halves rounded up.

    Numbers come from a shuffle that the seed alone decides, so number and seed name the same patient in a cohort of
    any size, and the number does not hint at the grade.

    Args:
        settings: the cohort.

    Returns:
        The patients, in the order of making.
    """
    numbers = np.random.default_rng(settings.seed).permutation(NUMBERS)[: settings.patients]
    separation = SEPARATION * (1 - settings.difficulty)
    patients = []
    name = "Phantom" if settings.site == "a" else f"Phantom{settings.site.upper()}"
    for place, number in enumerate(int(n) for n in numbers):
        grade = floor((place + 1) * settings.hgg_share + 0.5) - floor(place * settings.hgg_share + 0.5)
        latent = (grade - 0.5) * separation + _streams(settings.seed, number)[0].standard_normal()
        patients.append(PhantomPatient(f"{name}_{settings.seed}_{number:04d}", number, grade, float(latent)))
    return tuple(patients)


def draw_patient(patient: PhantomPatient, settings: PhantomSettings) -> dict[str, Voxels]:
    """The images of one patient, on the whole grid.

    Args:
        patient: from `plan_cohort`.
        settings: the cohort's.

    Returns:
        name -> int16 (X, Y, Z), Fortran order: those of MODALITIES, and `seg` with BraTS labels 0, 1, 2, 4.
    """
    _, anatomy, growth, scanner = _streams(settings.seed, patient.number)
    brain = draw_brain(anatomy, settings.spacing)
    tumour = grow_tumour(growth, brain, draw_traits(growth, patient.latent))
    images = draw_images(scanner, brain, tumour, SITES[settings.site])  # (4, n)
    seg = np.zeros(len(brain.csf), np.int16)
    seg[tumour.voxels] = tumour.labels
    return {name: brain.paint(values) for name, values in zip((*MODALITIES, "seg"), (*images, seg), strict=True)}


def write_cohort(out: Path, settings: PhantomSettings, on_done: Callable[[str], None]) -> None:
    """Write the cohort: `out/HGG/<id>/<id>_{flair,t1,t1ce,t2,seg}.nii.gz`, `out/LGG/...`, and `out/phantom.csv`.

    The same settings give the same bytes (same library versions). A patient's folder appears when it is complete.
    `phantom.csv` (patient, grade, latent, seed, difficulty, site) comes last; it is a record for study, not an input.

    Args:
        out: a folder that is empty or does not exist.
        settings: the cohort.
        on_done: called with each patient's id, in the calling thread, in the order of finishing.

    Raises:
        CohortError: `out` is not an empty folder, cannot be written, or has no room for the cohort.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CohortError(f"{out} is not an empty folder; name a new one for the phantom cohort.")
    patients = plan_cohort(settings)
    atlas()  # once, before the threads ask for it
    # One BLAS thread each: the same sums on any number of cores.
    with threadpool_limits(limits=1), ThreadPoolExecutor(most_readers()) as pool:
        jobs = {pool.submit(_write_patient, out, patient, settings): patient for patient in patients}
        try:
            for number, job in enumerate(as_completed(jobs)):
                job.result()
                if number == 0:
                    _check_room(out, jobs[job], len(patients) - 1)
                on_done(jobs[job].id)
            _write_record(out / "phantom.csv", patients, settings)
        except OSError as error:
            raise CohortError(
                f"the phantom cohort cannot be written to {out}: {error}; choose another folder."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _check_room(out: Path, written: PhantomPatient, left: int) -> None:
    """Refuse a cohort that will not fit, once one patient tells how large they are."""
    one = sum(file.stat().st_size for file in (out / CLASSES[written.grade] / written.id).iterdir())
    free = shutil.disk_usage(out).free
    if left * one > free:
        raise CohortError(
            f"{left} more phantoms take {left * one / 1e9:.1f} GB, and the disk of {out} has {free / 1e9:.1f} GB free;"
            " name a folder on another disk, or take fewer patients or a larger --spacing."
        )


def _streams(seed: int, number: int) -> list[np.random.Generator]:
    """Four independent generators of one patient: latent, anatomy, tumour, scanner."""
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed, spawn_key=(number,)).spawn(4)]


def _write_patient(out: Path, patient: PhantomPatient, settings: PhantomSettings) -> None:
    volumes = draw_patient(patient, settings)
    folder = out / CLASSES[patient.grade] / patient.id
    unfinished = folder.with_name(f".{patient.id}")
    unfinished.mkdir(parents=True)
    for name, volume in volumes.items():
        (unfinished / f"{patient.id}_{name}.nii.gz").write_bytes(_nifti(volume, settings.spacing))
    unfinished.rename(folder)


def _nifti(volume: Voxels, spacing: float) -> bytes:
    """A compressed NIfTI-1 file of an int16 volume (X, Y, Z) on the BraTS field of view; no name, no time in it."""
    first = 0.5 * (spacing - 1)  # mm, centre of the first voxel: the field's corner stays where BraTS has it
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[:3, 3] = (-first, EXTENT[1] - 1 - first, first)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(volume.shape)
    header.set_qform(affine, code="aligned")
    header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["descrip"] = PHANTOM_MARK
    header["vox_offset"] = 352  # 348 bytes of header, 4 that say: no extensions
    content = header.binaryblock + bytes(4) + volume.tobytes(order="F")
    return bytes(imagecodecs.gzip_encode(content, level=1))  # no time in it: the same voxels give the same bytes


def _write_record(file: Path, patients: tuple[PhantomPatient, ...], settings: PhantomSettings) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["patient", "grade", "latent", "seed", "difficulty", "site"])
    for p in sorted(patients, key=lambda p: p.id):
        latent = f"{p.latent:.6f}"
        table.writerow([p.id, CLASSES[p.grade], latent, settings.seed, settings.difficulty, settings.site])
    write_file(file, text.getvalue(), CohortError)
