from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from toolkit.data.measures import measure_patients
from toolkit.data.patients import MODALITIES, Patient
from toolkit.data.reading.door import open_patient
from toolkit.data.statistics import image_statistics
from toolkit.data.tumour import tumour_measures
from toolkit.errors import CohortError

AFFINE = np.diag([-2.0, -2.0, 2.0, 1.0])  # voxels of 8 mm3


def patient(folder: Path, seg: np.ndarray | None, seed: int = 0, affine: np.ndarray = AFFINE) -> Patient:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for name in MODALITIES:
        image = np.zeros((24, 24, 24), np.int16)
        image[2:22, 2:22, 2:22] = rng.integers(100, 900, (20, 20, 20))
        nib.save(nib.Nifti1Image(image, AFFINE), folder / f"{folder.name}_{name}.nii.gz")
    if seg is not None:
        nib.save(nib.Nifti1Image(seg, affine), folder / f"{folder.name}_seg.nii.gz")
    return Patient(folder.name, folder)


def labels(core: int, oedema: int, enhancing: int, value: int = 4) -> np.ndarray:
    flat = np.zeros(8 * 8 * 8, np.int16)
    flat[:core] = 1
    flat[core : core + oedema] = 2
    flat[core + oedema : core + oedema + enhancing] = value
    seg = np.zeros((24, 24, 24), np.int16)
    seg[8:16, 8:16, 8:16] = flat.reshape(8, 8, 8)
    return seg


@pytest.mark.parametrize("value", [3, 4])
def test_volumes_by_hand(tmp_path: Path, value: int) -> None:
    found = tumour_measures(open_patient(patient(tmp_path / "p", labels(50, 125, 25, value))))
    assert found == pytest.approx(
        {
            "core": np.log(1.4),  # 50 voxels of 0.008 ml are 0.4 ml
            "oedema": np.log(2.0),
            "enhancing": np.log(1.2),
            "tumour": np.log(2.6),
            "core_share": 0.25,
            "oedema_share": 0.625,
            "enhancing_share": 0.125,
            "brain_share": 200 / 8000,
        }
    )


def test_no_tumour_divides_by_nothing(tmp_path: Path) -> None:
    found = tumour_measures(open_patient(patient(tmp_path / "p", labels(0, 0, 0))))
    assert set(found.values()) == {0.0}


def test_masks_are_used_where_everybody_has_one(tmp_path: Path) -> None:
    with_mask = [patient(tmp_path / f"m{i}", labels(10 * i, 20, 5), i) for i in range(3)]
    done: list[str] = []
    measures = measure_patients(with_mask, lambda one: done.append(one.id))
    assert done == ["m0", "m1", "m2"]
    assert measures.looks_at.startswith("volumes")
    np.testing.assert_allclose(measures.table[:, measures.names.index("core")], np.log1p([0, 0.08, 0.16]))
    without = patient(tmp_path / "n", None)
    mixed = measure_patients([*with_mask, without], lambda one: None)
    assert mixed.looks_at.startswith("statistics")
    expected = image_statistics(open_patient(without))
    np.testing.assert_array_equal(mixed.table[3], [expected[name] for name in mixed.names])


def test_a_mask_on_another_grid_is_named(tmp_path: Path) -> None:
    bad = patient(tmp_path / "bad", labels(1, 1, 1), affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    with pytest.raises(CohortError, match="patient bad cannot be measured: the tumour mask is on another grid"):
        measure_patients([bad], lambda one: None)
