import nibabel as nib
import numpy as np
import pytest

from tests.toolkit.data.faults import drafted
from tests.toolkit.data.faults.build import LPS, brain
from toolkit.config import Grid
from toolkit.data.control import mask_tumour
from toolkit.data.patients import Patient
from toolkit.data.reading.door import open_patient
from toolkit.data.scan import read_scan
from toolkit.errors import PatientRefused

TUMOUR = (slice(9, 14), slice(9, 14), slice(6, 10))  # the bright block of the sound patient


@pytest.fixture
def patient(tmp_path):
    folder = drafted(()).write(tmp_path)
    return Patient(folder.name, folder)


def add_mask(patient, where=TUMOUR, affine=LPS, shape=(24, 24, 16)):
    mask = np.zeros(shape, np.uint8)
    mask[where] = 4
    nib.save(nib.Nifti1Image(mask, affine), patient.folder / "patient_seg.nii.gz")


def test_the_tumour_becomes_the_median_and_the_rest_stays(patient):
    add_mask(patient)
    before = open_patient(patient)
    after = mask_tumour(before)
    stored = brain("t2")
    tumour = np.zeros(stored.shape, bool)
    tumour[TUMOUR] = True
    expected = np.where(tumour, np.median(stored[(stored != 0) & ~tumour]).astype(np.int16), stored)
    # RAS: the file's first two axes run the other way.
    np.testing.assert_array_equal(after.voxels["t2"], expected[::-1, ::-1][before.box])
    assert after.notes[-1] == "control: 100 tumour voxels replaced by the brain's median"


def test_a_scan_through_the_control_differs_only_through_the_tumour(patient):
    add_mask(patient)
    grid = Grid(spacing=1.5, shape=(16, 16, 16))
    plain, masked = read_scan(patient, grid).data, read_scan(patient, grid, edit=mask_tumour).data
    middle = (slice(None), slice(6, 10), slice(6, 10), slice(6, 10))
    assert plain[middle].mean() > 1 > abs(masked[middle].mean())


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ({}, "there is no tumour mask"),
        ({"affine": LPS + np.array([[0, 0, 0, 5.0]] + [[0] * 4] * 3)}, "another grid"),
        ({"shape": (24, 24, 15)}, "another grid"),
        ({"where": ...}, "covers the whole brain"),
    ],
)
def test_refused(patient, mask, reason):
    if mask:
        add_mask(patient, **mask)
    with pytest.raises(PatientRefused, match=reason):
        mask_tumour(open_patient(patient))
