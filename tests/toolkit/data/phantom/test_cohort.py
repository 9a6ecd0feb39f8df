import csv
import gzip
import shutil
from itertools import pairwise
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from toolkit.data.labels import read_cohort
from toolkit.data.layout import PHANTOMS
from toolkit.data.patients import CLASSES, MODALITIES
from toolkit.data.phantom.brain import draw_brain, smooth_noise
from toolkit.data.phantom.cohort import SEPARATION, PhantomSettings, draw_patient, plan_cohort, write_cohort
from toolkit.data.phantom.tumour import draw_traits
from toolkit.errors import CohortError, SettingsError

BRATS_AFFINE = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
NAMES = (*MODALITIES, "seg")


def settings(**changes):
    return PhantomSettings(**{"patients": 3, "seed": 4, "difficulty": 0.5, "spacing": 4.0} | changes)


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def write(folder, **changes):
    write_cohort(folder, settings(**changes), lambda _: None)
    return folder


def read(folder):
    """Name -> voxels of one patient."""
    return {name: np.asarray(nib.load(folder / f"{folder.name}_{name}.nii.gz").dataobj) for name in NAMES}


def patients(out):
    """(grade, folder) of every patient, by name."""
    return [(CLASSES.index(folder.parent.name), folder) for folder in sorted(out.glob("*GG/*"))]


def enhancement(volumes):
    """What a rater looks at: the brightest tenth of T1ce minus T1 in the core, in units of the brain's median."""
    brain = volumes["t1"] > 0
    core = np.isin(volumes["seg"], (1, 4))
    t1, t1ce = (volumes[m] / np.median(volumes[m][brain]) for m in ("t1", "t1ce"))
    return np.percentile((t1ce - t1)[core], 90)


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    return write(tmp_path_factory.mktemp("easy"), patients=30, hgg_share=0.5, difficulty=0.0)


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hard"), patients=30, hgg_share=0.5, difficulty=0.8)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """One patient at 1 mm."""
    ((_, folder),) = patients(write(tmp_path_factory.mktemp("full"), patients=1, spacing=1.0))
    return folder


def test_layout_is_that_of_brats_2018(tmp_path):
    done = []
    write_cohort(tmp_path / "new" / "cohort", settings(patients=4), done.append)
    found = patients(tmp_path / "new" / "cohort")
    files = {folder.name: sorted(file.name for file in folder.iterdir()) for _, folder in found}
    assert files == {name: sorted(f"{name}_{end}.nii.gz" for end in NAMES) for name in done}
    assert [grade for grade, _ in found].count(1) == 3
    assert sorted(p.name for p in (tmp_path / "new" / "cohort").iterdir()) == ["HGG", "LGG", "phantom.csv"]
    assert all(name.startswith("Phantom_4_") for name in done)


def test_the_record_agrees_with_the_folders(easy):
    with (easy / "phantom.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["patient", "grade", "latent", "seed", "difficulty", "site"]
    assert {row["patient"]: row["grade"] for row in rows} == {f.name: CLASSES[g] for g, f in patients(easy)}
    cohort = read_cohort(easy, None)
    assert {p.id: CLASSES[g] for p, g in zip(cohort.patients, cohort.grades, strict=True)} == {
        row["patient"]: row["grade"] for row in rows
    }


def test_files_are_those_of_brats(full):
    for name in NAMES:
        image = nib.load(full / f"{full.name}_{name}.nii.gz")
        assert image.shape == (240, 240, 155)
        assert image.get_data_dtype() == np.int16
        np.testing.assert_array_equal(image.affine, BRATS_AFFINE)
        np.testing.assert_array_equal(image.header.get_qform(coded=True)[0], BRATS_AFFINE)
        assert int(image.header["qform_code"]) > 0
        assert int(image.header["sform_code"]) > 0
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.header.get_slope_inter() in ((1.0, 0.0), (None, None))


def test_the_gzip_header_holds_no_name_and_no_time(full):
    for file in full.iterdir():
        head = file.read_bytes()[:10]
        assert (head[:3], head[3], head[4:8]) == (b"\x1f\x8b\x08", 0, bytes(4))
        assert len(gzip.decompress(file.read_bytes())) == 352 + 2 * 240 * 240 * 155


def test_the_brain_is_stripped_and_of_a_brains_size(full):
    volumes = read(full)
    brain = volumes["t1"] > 0
    for modality in MODALITIES:
        assert volumes[modality].min() == 0
        np.testing.assert_array_equal(volumes[modality] > 0, brain)
        assert volumes[modality][brain].std() > 10
    assert 1.1e6 < brain.sum() < 1.9e6  # mm3; six real ones: 1.27e6 to 1.73e6
    lengths = np.ptp(np.argwhere(brain), axis=0) + 1
    assert (lengths <= (156, 192, 155)).all()  # the default grid of a scan, mm
    assert (lengths >= (110, 140, 110)).all()


@pytest.mark.parametrize(("spacing", "shape"), [(2.0, (120, 120, 78)), (4.0, (60, 60, 39))])
def test_the_field_of_view_stays_at_coarser_spacings(tmp_path, spacing, shape):
    ((_, folder),) = patients(write(tmp_path, patients=1, spacing=spacing))
    image = nib.load(folder / f"{folder.name}_t2.nii.gz")
    corner = np.array([-0.5, -0.5, -0.5, 1])
    assert image.shape == shape
    assert image.header.get_zooms() == (spacing,) * 3
    np.testing.assert_allclose(image.affine @ corner, BRATS_AFFINE @ corner)


def test_a_patient_is_the_same_at_every_spacing():
    def tumour(spacing):
        wanted = settings(spacing=spacing)
        seg = draw_patient(plan_cohort(wanted)[0], wanted)["seg"]
        middle = (np.argwhere(seg > 0).mean(axis=0) + 0.5) * spacing
        return (seg > 0).sum() * spacing**3, middle

    (fine_volume, fine_middle), (coarse_volume, coarse_middle) = tumour(2.0), tumour(4.0)
    assert coarse_volume == pytest.approx(fine_volume, rel=0.1)
    np.testing.assert_allclose(coarse_middle, fine_middle, atol=1)  # mm


def test_the_same_settings_give_the_same_bytes(tmp_path):
    first, again = (contents(write(tmp_path / name)) for name in ("first", "again"))
    assert len(first) == 3 * 5 + 1
    assert first == again
    other = contents(write(tmp_path / "other", seed=5, patients=1))
    assert not set(other.values()) & set(first.values())


def test_a_cohort_that_does_not_fit_is_refused_after_one_patient(tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.data.phantom.cohort.shutil.disk_usage", lambda _: SimpleNamespace(free=30_000_000))
    with pytest.raises(CohortError, match=r"more phantoms take 0\.\d GB, and the disk of .* has 0\.0 GB free"):
        write(tmp_path / "large", patients=400)
    assert len(patients(tmp_path / "large")) < 20


def test_a_larger_cohort_holds_the_smaller_one(tmp_path):
    small, large = (contents(write(tmp_path / str(n), patients=n)) for n in (2, 5))
    del small["phantom.csv"]
    assert {name: large.get(name) for name in small} == small


@pytest.mark.parametrize(("count", "share", "hgg"), [(285, 210 / 285, 210), (60, 0.5, 30), (7, 0.0, 0), (7, 1.0, 7)])
def test_class_counts(count, share, hgg):
    assert sum(p.grade for p in plan_cohort(settings(patients=count, hgg_share=share))) == hgg


def test_the_id_says_nothing_of_the_grade():
    plan = plan_cohort(settings(patients=4000))
    numbers = [int(p.id.rpartition("_")[2]) for p in plan]
    assert len(set(numbers)) == 4000
    assert roc_auc_score([p.grade for p in plan], numbers) == pytest.approx(0.5, abs=0.04)  # 4 standard errors


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 0.8, 1.0])
def test_the_latents_auc_is_the_binormal_one(difficulty):
    plan = plan_cohort(settings(patients=4000, hgg_share=0.5, difficulty=difficulty))
    auc = roc_auc_score([p.grade for p in plan], [p.latent for p in plan])
    assert auc == pytest.approx(norm.cdf(SEPARATION * (1 - difficulty) / np.sqrt(2)), abs=0.03)


def test_difficulty_runs_from_plain_to_hopeless():
    ends = [norm.cdf(SEPARATION * (1 - difficulty) / np.sqrt(2)) for difficulty in (0.0, 0.5, 1.0)]
    assert ends[0] >= 0.98
    assert ends[1] == pytest.approx(0.86, abs=0.01)
    assert ends[2] == 0.5


def test_segmentations_are_brats_labels_inside_the_brain(easy):
    for _, folder in patients(easy):
        volumes = read(folder)
        assert set(np.unique(volumes["seg"])) <= {0, 1, 2, 4}
        assert (volumes["seg"] == 1).any() or (volumes["seg"] == 4).any()
        assert (volumes["t1"][volumes["seg"] > 0] > 0).all()


def test_high_grade_enhances(easy):
    values = {grade: [] for grade in (0, 1)}
    labelled = {grade: [] for grade in (0, 1)}
    for grade, folder in patients(easy):
        volumes = read(folder)
        values[grade].append(enhancement(volumes))
        labelled[grade].append((volumes["seg"] == 4).sum())
    assert np.mean(values[1]) > np.mean(values[0]) + 1
    assert np.median(labelled[0]) == 0
    assert min(labelled[1]) > 0


def test_what_an_oracle_reads_from_the_images_follows_the_difficulty(easy, hard):
    def oracle(out):
        return roc_auc_score(
            *zip(*[(grade, enhancement(read(folder))) for grade, folder in patients(out)], strict=True)
        )

    assert oracle(easy) > 0.9
    assert oracle(hard) == pytest.approx(
        norm.cdf(SEPARATION * 0.2 / np.sqrt(2)), abs=0.2
    )  # 2 standard errors of 15 + 15


def test_difficulty_leaves_the_brain_as_it_is():
    one, two = (draw_patient(plan_cohort(s)[0], s) for s in (settings(difficulty=0.0), settings(difficulty=1.0)))
    np.testing.assert_array_equal(one["t1"] > 0, two["t1"] > 0)
    assert (one["seg"] != two["seg"]).any()


def test_traits_follow_the_latent():
    levels = [draw_traits(np.random.default_rng(0), latent) for latent in (-3.0, -1.0, 0.0, 1.0, 3.0)]
    for name in ("uptake", "necrosis", "oedema", "heterogeneity", "blur"):
        assert all(getattr(a, name) < getattr(b, name) for a, b in pairwise(levels))
    mismatch = [[draw_traits(np.random.default_rng(i), x).mismatch for i in range(300)] for x in (-3.0, 3.0)]
    assert np.mean(mismatch[0]) == pytest.approx(0.3, abs=0.08)
    assert np.mean(mismatch[1]) < 0.02


def test_tissues_share_each_voxel():
    brain = draw_brain(np.random.default_rng(1), 4.0)
    assert len(brain.csf) == brain.mask.sum()
    np.testing.assert_allclose(brain.csf + brain.grey + brain.white, 1, atol=1e-5)
    np.testing.assert_array_equal(brain.paint(np.ones(len(brain.csf), np.int16)).sum(), brain.mask.sum())


def test_smooth_noise_has_unit_variance_and_a_gaussian_correlation():
    length, distance = 30.0, 40.0
    axes = (np.array([100.0, 100.0 + distance]), np.array([100.0]), np.array([77.0]))
    draws = np.array([smooth_noise(np.random.default_rng(i), axes, length).ravel() for i in range(1500)])
    assert draws.mean() == pytest.approx(0, abs=0.1)
    assert draws.var() == pytest.approx(1, abs=0.1)
    expected = np.exp(-(distance**2) / (4 * length**2))
    assert np.corrcoef(draws.T)[0, 1] == pytest.approx(expected, abs=0.07)


def test_a_part_shows_the_same_noise_as_the_whole():
    axes = tuple(np.arange(n, dtype=float) for n in (40, 30, 20))
    whole = smooth_noise(np.random.default_rng(2), axes, 10.0)
    part = smooth_noise(np.random.default_rng(2), (axes[0][5:9], axes[1][::2], axes[2]), 10.0)
    np.testing.assert_allclose(part, whole[5:9, ::2], atol=1e-5)


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(CohortError, match="not an empty folder"):
        write(tmp_path)
    with pytest.raises(CohortError, match=r"kept\.txt is not an empty folder"):
        write(tmp_path / "kept.txt")
    with pytest.raises(CohortError, match="cannot be written"):
        write(tmp_path / "kept.txt" / "below")
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_an_error_of_the_caller_passes_through_and_leaves_whole_patients_only(tmp_path):
    def stop(_):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        write_cohort(tmp_path, settings(patients=30), stop)
    assert 1 <= len(patients(tmp_path)) < 30
    assert all(len(list(folder.iterdir())) == 5 for _, folder in patients(tmp_path))
    assert not (tmp_path / "phantom.csv").exists()
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"patients": 0},
        {"patients": 10_001},
        {"seed": -1},
        {"difficulty": 1.1},
        {"site": "c"},
        {"difficulty": float("nan")},
        {"hgg_share": -0.1},
        {"spacing": 0.5},
        {"spacing": 5.0},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    (name,) = changes
    with pytest.raises(SettingsError, match=f"phantom {name} = .*choose (a value from|one of)"):
        settings(**changes)


def test_site_b_shows_the_same_person_through_another_scanner():
    near, far = settings(spacing=2.0), settings(spacing=2.0, site="b")
    one, other = plan_cohort(near)[0], plan_cohort(far)[0]
    assert (one.number, one.latent) == (other.number, other.latent)
    assert other.id == one.id.replace("Phantom_", "PhantomB_")
    here, there = draw_patient(one, near), draw_patient(other, far)
    np.testing.assert_array_equal(here["seg"], there["seg"])
    assert enhancement(there) < 0.8 * enhancement(here)
    healthy = (here["seg"] == 0) & (here["t1"] > 0)
    for name in MODALITIES:
        grain = [
            np.median(np.abs(np.diff(image.astype(float), 2, axis=0)[healthy[2:]])) / np.median(image[healthy])
            for image in (here[name], there[name])
        ]
        assert grain[1] > 1.05 * grain[0], name


def test_a_cohort_of_phantoms_says_so_and_no_other_does(tmp_path):
    """The mark is in the images, so that it stays with patients who are copied elsewhere."""
    write_cohort(tmp_path / "a", PhantomSettings(2, 0, 0.5, hgg_share=0.5, spacing=4.0), lambda _: None)
    (tmp_path / "b").mkdir()
    for folder in (tmp_path / "a").glob("?GG"):
        shutil.copytree(folder, tmp_path / "b" / folder.name)
    assert PHANTOMS in read_cohort(tmp_path / "b", None).labels
    for file in (tmp_path / "b").rglob("*.nii.gz"):
        image = nib.load(file)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), file)
    assert PHANTOMS not in read_cohort(tmp_path / "b", None).labels
