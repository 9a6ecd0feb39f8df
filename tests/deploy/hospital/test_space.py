"""From four series with the skull to BraTS space: geometry, alignment, pose, limits."""

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from scipy.spatial.transform import Rotation

from deploy.hospital.space import pose as room
from deploy.hospital.space.brain import Brain, find_brain, open_brain
from deploy.hospital.space.image import FLIP, NOTHING, points_of, resample, to_image, to_matrix, to_transform, to_volume
from deploy.hospital.space.pose import AFFINE, AFFINE_STEPS, SHAPE, TURN, find_pose
from deploy.hospital.space.prepare import prepare
from deploy.hospital.space.quality import contrast, cut_share, judge
from deploy.hospital.space.register import Alignment, Start, align
from deploy.hospital.volume import Volume
from tests.deploy.hospital.scene import rigid, template_brain, template_head, write_bright_network
from toolkit.errors import PatientRefused, RuntimeUnavailable

MOTION = rigid((6.0, -4.0, 8.0), (7.0, -5.0, 4.0))


def angle_between(first, second):
    """Degrees."""
    return np.degrees(Rotation.from_matrix(first.T @ second).magnitude())


def test_image_keeps_voxels_and_place():
    affine = rigid((20.0, 10.0, -5.0), (3.0, 4.0, 5.0)) @ np.diag([-1.0, -2.0, 3.0, 1.0])
    volume = Volume(np.arange(24, dtype=np.float32).reshape(2, 3, 4), affine)
    image = to_image(volume)
    place = FLIP @ affine @ (1, 2, 3, 1)
    assert image.TransformIndexToPhysicalPoint((1, 2, 3)) == pytest.approx(place[:3])
    assert image.GetPixel(1, 2, 3) == volume.voxels[1, 2, 3]
    back = to_volume(image)
    assert np.array_equal(back.voxels, volume.voxels)
    assert back.affine == pytest.approx(affine)


def test_slanted_axes_are_refused():
    affine = np.eye(4)
    affine[0, 2] = 0.2
    with pytest.raises(PatientRefused, match="slanted axes"):
        to_image(Volume(np.zeros((3, 3, 3), np.float32), affine))


def test_matrix_survives_simpleitk():
    assert to_matrix(to_transform(MOTION)) == pytest.approx(MOTION)


def test_resampling_moves_by_the_matrix_and_says_where_nothing_is():
    voxels = np.zeros((9, 9, 9), np.float32)
    voxels[6, 4, 4] = 1
    image = to_image(Volume(voxels, np.eye(4)))
    moved = to_volume(resample(image, image, rigid((0, 0, 0), (2.0, 0, 0)))).voxels
    assert moved[4, 4, 4] == 1
    assert (moved[7:] == np.float32(NOTHING)).all()


def off(matrix, wanted, head):
    """How far a transform carries the brain of a head from where another does, mm on average."""
    points = points_of(Volume(np.where(head.voxels > 90, head.voxels, 0), head.affine))[:, ::97]
    apart = (matrix - wanted)[:3, :3] @ points + (matrix - wanted)[:3, 3:]
    return np.linalg.norm(apart, axis=0).mean()


def test_alignment_finds_the_motion_and_its_starts_agree():
    fixed = template_head(np.eye(4), 1.3)
    found = align(to_image(fixed), to_image(template_head(MOTION, -1.0)))
    assert off(found.matrix, MOTION, fixed) < 0.5
    assert found.agreement < 1
    assert found.information > 0.3


def test_starts_are_apart_on_one_grid():
    image = to_image(template_head(np.eye(4), edge=(5, 5, 5)))
    found = align(image, image)
    assert {start.name for start in found.starts} == {"scanner", "geometry", "moments"}
    assert len({start.distance for start in found.starts}) == 3  # else one agrees with itself


@pytest.fixture(scope="module")
def pose():
    return find_pose(template_brain(np.eye(4)))


def test_pose_is_the_turned_template(pose):
    wanted = Rotation.from_euler("x", -TURN, degrees=True).as_matrix()
    assert angle_between(pose.matrix[:3, :3], wanted) < 0.5


def test_pose_undoes_how_the_head_lay_and_keeps_its_top():
    motion = rigid((18.0, 5.0, -7.0), (10.0, 20.0, -5.0))
    brain = template_brain(motion)
    pose = find_pose(brain)
    wanted = motion[:3, :3] @ Rotation.from_euler("x", -TURN, degrees=True).as_matrix()
    assert angle_between(pose.matrix[:3, :3], wanted) < 1.0
    assert np.linalg.det(pose.matrix[:3, :3]) == pytest.approx(1)
    points = points_of(brain)
    places = np.linalg.inv(pose.matrix @ AFFINE) @ np.vstack([points, np.ones(points.shape[1])])
    assert 140 < places[2].max() < SHAPE[2]  # MNI's brain is higher than the grid of BraTS: its top has to be inside
    assert (places[:2].min(axis=1) > 0).all()
    assert (places[:2].max(axis=1) < SHAPE[0]).all()


def test_pose_is_of_the_best_affine_fit(pose, monkeypatch):
    """A descent that ends stretched, in a worse place than another, does not count."""

    def fit(level, start, first):
        information, affine = found(level, start, first)
        if first == AFFINE_STEPS[0]:
            affine.Scale((0.3, 1.0, 1.0))
            information /= 3
        return information, affine

    found = room._affine_fit
    monkeypatch.setattr(room, "_affine_fit", fit)
    again = find_pose(template_brain(np.eye(4)))
    assert again.information == pytest.approx(pose.information, rel=0.02)
    assert min(again.scale) > 0.9
    assert angle_between(again.matrix[:3, :3], pose.matrix[:3, :3]) < 0.3


def test_head_without_a_brain_is_refused(tmp_path):
    brain = open_brain(write_bright_network(tmp_path / "brain.onnx"), 1)
    with pytest.raises(PatientRefused, match="one value only"):
        find_brain(brain, Volume(np.ones((40, 40, 40), np.float32), np.diag([3.0, 3, 3, 1])))
    with pytest.raises(PatientRefused, match="more than a head"):
        find_brain(brain, Volume(np.ones((40, 40, 40), np.float32), np.diag([12.0, 12, 12, 1])))


def test_a_runtime_that_fails_is_said_in_a_sentence(tmp_path):
    class Full:
        def run(self, *_):
            raise Fail("Failed to allocate memory for requested buffer of size 1427583488")

    head = Volume(np.random.default_rng(0).random((40, 40, 40), np.float32), np.diag([3.0, 3, 3, 1]))
    with pytest.raises(RuntimeUnavailable, match="the brain mask failed on cuda: Failed to allocate memory"):
        find_brain(Brain(Full(), "cuda"), head)
    for content in (b"no graph", tmp_path / "gone.onnx"):
        with pytest.raises(RuntimeUnavailable, match="cannot load the brain mask's network"):
            open_brain(content, 1)


def test_brain_cut_at_the_top_is_seen():
    voxels = np.zeros((20, 20, 20), np.float32)
    voxels[5:15, 5:15, :15] = 1  # the lowest plane cuts the brainstem: no fault
    assert cut_share(Volume(voxels, np.eye(4))) == 0
    voxels[5:15, 5:10, 15:] = 1
    assert cut_share(Volume(voxels, np.eye(4))) == 0.5


def test_contrast_is_seen_and_its_absence():
    rng = np.random.default_rng(0)
    plain = rng.normal(100, 10, (30, 30, 30)).astype(np.float32)
    bright = plain * 1.2 + rng.normal(0, 1, plain.shape).astype(np.float32)
    bright[:4, :4] += 80
    mask = np.ones(plain.shape, bool)
    assert contrast({"t1": plain, "t1ce": bright}, mask) > 0.5
    assert contrast({"t1": bright, "t1ce": plain}, mask) < -0.5


def alignment(information=0.8, apart=0.1):
    return Alignment(np.eye(4), information, (Start("scanner", information, 0.0), Start("moments", information, apart)))


COVERED = {"flair": 0.0, "t1": 0.0, "t1ce": 0.0, "t2": 0.0}


def test_usual_figures_leave_no_note(pose):
    assert judge(1500.0, 0.0, COVERED, {"t1": alignment()}, pose) == ()


@pytest.mark.parametrize(
    ("figures", "noted"),
    [
        ((850.0, 0.0, COVERED, {}), "850 ml"),
        ((2100.0, 0.0, COVERED, {}), "2100 ml"),
        ((1500.0, 0.2, COVERED, {}), "cuts the brain: 20%"),
        ((1500.0, 0.0, COVERED | {"t2": 0.05}, {}), "t2 does not cover 5.0%"),
        ((1500.0, 0.0, COVERED, {"t1": alignment(apart=1.8)}), "t1 on t1ce: no two starts ended closer than 1.8 mm"),
        ((1500.0, 0.0, COVERED, {"t1": alignment(0.2)}), "mutual information is 0.20"),
    ],
)
def test_unusual_figures_are_noted(pose, figures, noted):
    (note,) = judge(*figures, pose)
    assert noted in note


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ((500.0, 0.0, COVERED, {}), "500 ml"),
        ((2500.0, 0.0, COVERED, {}), "2500 ml"),
        ((1500.0, 0.6, COVERED, {}), "60%"),
        ((1500.0, 0.0, COVERED | {"t2": 0.5}, {}), "t2 does not cover"),
        ((1500.0, 0.0, COVERED, {"flair": alignment(apart=28.0)}), "28.0 mm"),
        ((1500.0, 0.0, COVERED, {"flair": alignment(0.06)}), "mutual information is 0.06"),
        ((1500.0, 0.0, COVERED, {"flair": alignment(float("nan"))}), "flair"),
    ],
)
def test_what_cannot_be_believed_is_refused(pose, figures, reason):
    with pytest.raises(PatientRefused, match=reason):
        judge(*figures, pose)


@pytest.mark.parametrize("value", [0.0, 7.0, float("nan")])
def test_empty_series_is_refused(tmp_path, value):
    brain = open_brain(write_bright_network(tmp_path / "brain.onnx"), 1)
    series = {name: Volume(np.full((9, 9, 9), value, np.float32), np.eye(4)) for name in ("flair", "t1", "t1ce", "t2")}
    with pytest.raises(PatientRefused, match="one value only"):
        prepare(series, brain, lambda _: None)
