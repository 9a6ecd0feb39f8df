"""The fast preprocessing against a straightforward one."""

import threading
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from toolkit.config import Grid
from toolkit.data.box import box_of
from toolkit.data.memory import Workspace, Workspaces
from toolkit.data.patients import MODALITIES, Patient
from toolkit.data.reading.door import Reading, open_patient
from toolkit.data.scan import make_scan, read_scan
from toolkit.errors import PatientRefused

BRATS = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]])
SHAPE = (50, 60, 44)
GRID = Grid(spacing=1.5, shape=(40, 44, 36))


def brain(seed, dtype=np.int16):
    """A smooth random image inside an ellipsoid, 0 outside."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1.25, 1.25, n) for n in SHAPE), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    image = 500 + 2000 * ndimage.gaussian_filter(rng.normal(size=SHAPE), 2) + rng.normal(0, 5, SHAPE)
    return np.where(inside, image.clip(50), 0).astype(dtype)


@pytest.fixture(scope="module")
def images():
    return {name: brain(seed) for seed, name in enumerate(MODALITIES)}


def write(folder, images, affine=BRATS):
    folder.mkdir()
    for name, image in images.items():
        nib.save(nib.Nifti1Image(image, affine), folder / f"{folder.name}_{name}.nii.gz")
    return Patient(folder.name, folder)


def straightforward(images, affine, grid, seen_alone=False):
    """The same steps, one after the other, in float64; or only which voxels the network sees."""
    ras = {
        name: nib.as_closest_canonical(nib.Nifti1Image(image.astype(float), affine)) for name, image in images.items()
    }
    arrays = {name: image.get_fdata() for name, image in ras.items()}
    mask = np.any([array != 0 for array in arrays.values()], axis=0).astype(float)
    used = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    edges = np.linalg.norm(ras["flair"].affine[:3, :3], axis=0)
    on_grid = []
    for array in (mask, *arrays.values()):
        image = array
        for axis, (where, edge) in enumerate(zip(used, edges, strict=True)):
            scale = grid.spacing / edge
            width = max(1, scale)
            centres = (where[0] + where[-1]) / 2 + (np.arange(grid.shape[axis]) - (grid.shape[axis] - 1) / 2) * scale
            matrix = np.zeros((grid.shape[axis], image.shape[axis]))
            for row, centre in enumerate(centres):
                near = np.arange(int(centre) - 20, int(centre) + 21)
                weights = np.maximum(0, 1 - np.abs(near - centre) / width)
                for voxel, weight in zip(near, weights / weights.sum(), strict=True):
                    if 0 <= voxel < image.shape[axis]:
                        matrix[row, voxel] = weight
            image = np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis)
        on_grid.append(image)
    share, *channels = on_grid
    brain = share > 0.47
    inside, seen = (
        ndimage.minimum_filter(brain, 2 * round(mm / grid.spacing) + 1, mode="constant", cval=1) for mm in (3, 1.5)
    )
    if seen_alone:
        return seen
    centred = [one - share * one[inside].sum() / share[inside].sum() for one in channels]
    return np.stack([seen * one / one[inside].std() for one in centred])


@pytest.mark.parametrize("affine", [BRATS, np.diag([0.9, 1.1, 2.0, 1.0])], ids=["BraTS", "anisotropic"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, np.int64])
def test_equals_the_straightforward_way(tmp_path, images, affine, dtype):
    images = {name: (image / 10 if dtype == np.uint8 else image).astype(dtype) for name, image in images.items()}
    folder = tmp_path / "patient"
    folder.mkdir()
    for name, image in images.items():
        nib.save(nib.Nifti1Image(image, affine, dtype=image.dtype), folder / f"patient_{name}.nii.gz")
    scan = read_scan(Patient("patient", folder), GRID)
    assert scan.data.dtype == np.float32
    assert scan.data.flags.c_contiguous
    assert scan.data.shape == (4, *GRID.shape)
    np.testing.assert_allclose(scan.data, straightforward(images, affine, GRID), atol=1e-4)


def test_mirrored_and_permuted_storage_with_its_affine_gives_the_same_scan(tmp_path, images):
    expected = read_scan(write(tmp_path / "plain", images), GRID).data
    flip = BRATS @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    mirrored = write(tmp_path / "mirrored", {name: image[::-1] for name, image in images.items()}, flip)
    np.testing.assert_allclose(read_scan(mirrored, GRID).data, expected, atol=1e-5)
    permute = BRATS[:, [2, 0, 1, 3]]
    permuted = write(tmp_path / "permuted", {n: image.transpose(2, 0, 1) for n, image in images.items()}, permute)
    np.testing.assert_allclose(read_scan(permuted, GRID).data, expected, atol=1e-5)


def test_the_affine_leads_back_to_the_patient(tmp_path, images):
    """A bright voxel is found again at its place in mm."""
    images = {name: image.copy() for name, image in images.items()}
    images["t1"][20, 33, 25] = 20000
    scan = read_scan(write(tmp_path / "spot", images), GRID)
    peak = np.array(np.unravel_index(scan.data[1].argmax(), GRID.shape))
    found = scan.affine @ [*peak, 1]
    there = BRATS @ [20, 33, 25, 1]
    assert np.abs(found - there).max() <= GRID.spacing / 2 + 1e-6


def test_scale_and_offset_of_the_file_do_not_matter(tmp_path, images):
    expected = read_scan(write(tmp_path / "plain", images), GRID).data
    scaled = {name: image.astype(np.float32) * 0.037 - 11 for name, image in images.items()}
    np.testing.assert_allclose(read_scan(write(tmp_path / "scaled", scaled), GRID).data, expected, atol=1e-4)


def test_large_offset_inside_the_brain_keeps_its_digits(tmp_path, images):
    """Values near 10^9 that differ by tens: float32 alone would lose them."""
    raised = {
        name: np.where(image > 0, image.astype(np.int32) + 10**9, 0).astype(np.int32) for name, image in images.items()
    }
    expected = straightforward(raised, BRATS, GRID)
    np.testing.assert_allclose(read_scan(write(tmp_path / "raised", raised), GRID).data, expected, atol=1e-4)


def test_fluid_that_a_mask_takes_in_moves_no_z_score_of_the_brain(tmp_path, images):
    """A millimetre too many all around, dark in T1 and bright in T2."""
    brain = images["t1"] > 0
    rim = ndimage.binary_dilation(brain) & ~brain
    noise = np.random.default_rng(0).normal(1, 0.1, SHAPE)
    wider = {
        name: np.where(rim, level * noise, images[name]).astype(np.int16)
        for name, level in zip(MODALITIES, (100, 50, 50, 3000), strict=True)
    }
    expected = read_scan(write(tmp_path / "true", images), GRID).data
    found = read_scan(write(tmp_path / "wider", wider), GRID).data
    both = (expected != 0) & (found != 0)
    assert both.mean() > 0.9 * (expected != 0).mean()
    whole = {name: (image[brain].std(), image[brain | rim].std()) for name, image in wider.items()}
    assert whole["t2"][1] > 1.3 * whole["t2"][0]  # which is what the z-scores would have shrunk by
    difference = np.abs(found - expected)[both]
    assert np.percentile(difference, 90) < 0.05
    assert difference.mean() < 0.03


def test_the_surface_of_the_brain_is_not_seen(tmp_path, images):
    """1.5 mm of a grid of 1.5 mm: a voxel less on each side of each line through the brain."""
    scan = read_scan(write(tmp_path / "patient", images), GRID)
    share = straightforward(images, BRATS, GRID, seen_alone=True)
    assert ((scan.data != 0).any(axis=0) == share).all()


def test_a_brain_too_small_to_have_an_inside_is_taken_whole(tmp_path):
    """A cube of 20 mm on a grid of 3 mm."""
    rng = np.random.default_rng(0)
    small = {name: np.pad(rng.normal(500, 50, (20, 20, 20)), 15).astype(np.int16) for name in MODALITIES}
    data = read_scan(write(tmp_path / "small", small), Grid(spacing=3.0, shape=(24, 24, 24))).data
    where = (data != 0).any(axis=0)
    assert where.sum() >= 7**3  # the outermost voxels too, which are brain in part
    assert np.abs(data[:, where].mean(axis=1)).max() < 0.2


def test_a_brain_smaller_than_a_voxel_of_the_grid_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    dust = {name: np.pad(rng.uniform(100, 900, (8, 8, 8)), 2).astype(np.int16) for name in MODALITIES}
    patient = write(tmp_path / "dust", dust, np.diag([0.1, 0.1, 0.1, 1.0]))
    assert read_scan(patient, Grid(spacing=0.2, shape=(16, 16, 16))).data.any()
    with pytest.raises(PatientRefused, match=r"the brain fills no voxel of the grid, of 1\.5 mm"):
        read_scan(patient, GRID)
    assert box_of(open_patient(patient), GRID, Workspace()) is None


def test_a_modality_that_is_constant_but_for_its_surface_is_refused(tmp_path, images):
    checked = open_patient(write(tmp_path / "patient", images))
    core = ndimage.binary_erosion(checked.mask)
    flat = checked.voxels | {"t1": np.where(core, np.int16(300), checked.voxels["t1"])}
    with pytest.raises(PatientRefused, match="t1 is constant inside the brain"):
        make_scan(replace(checked, voxels=flat), GRID, Workspace())


def test_brain_larger_than_the_grid_is_noted(tmp_path, images):
    scan = read_scan(write(tmp_path / "large", images), Grid(spacing=1.0, shape=(32, 64, 48)))
    assert any("rim is cut off" in note for note in scan.notes)


def test_a_scaled_copy_is_no_second_modality(tmp_path, images):
    with pytest.raises(PatientRefused, match="t1 and t2 hold the same voxels"):
        read_scan(write(tmp_path / "copy", images | {"t2": (images["t1"] * 2).astype(np.int16)}), GRID)


def test_memory_of_the_patient_before_leaves_no_trace(tmp_path, images):
    """The larger patient first, in another dtype and order of axes, in one workspace."""
    workspace = Workspace()
    small = {name: image[:40, 5:55, :40].astype(np.float32) for name, image in images.items()}
    large = {name: np.pad(image, 3).astype(np.float64) for name, image in images.items()}
    patients = [write(tmp_path / "large", large), write(tmp_path / "small", small, np.diag([0.9, 1.1, 2.0, 1.0]))]
    grids = [Grid(spacing=1.0, shape=(60, 60, 48)), GRID]
    first = read_scan(patients[0], grids[0], Reading(workspace)).data
    kept = first.copy()
    again = read_scan(patients[1], grids[1], Reading(workspace)).data
    np.testing.assert_array_equal(first, kept)  # a scan is no part of the workspace
    np.testing.assert_array_equal(again, read_scan(patients[1], grids[1]).data)


def test_every_thread_has_a_workspace_of_its_own():
    of_thread, seen = Workspaces(), []
    thread = threading.Thread(target=lambda: seen.append(of_thread.mine))
    thread.start()
    thread.join()
    assert of_thread.mine is of_thread.mine
    assert seen[0] is not of_thread.mine
