"""Pages and evidence maps: what they show is what the record says."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deploy.model.folder import Model, open_model
from deploy.predict.pipeline import PredictOptions, predict
from deploy.report.evidence import Occlusion, between, occlusion, without, write_evidence, write_own
from deploy.report.pages import Pages
from deploy.report.region import box_affine, in_words, own_affine
from deploy.results.names import file_name
from deploy.results.record import Record
from deploy.runtime import Choice, RuntimeOutputs
from deploy.runtimes.open import open_runtime
from tests.deploy.conftest import SETTINGS, ignore
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient
from toolkit.data.reading.door import open_patient
from toolkit.data.scan import read_scan


class Numbers(HTMLParser):
    """The numbers of a page: (key, value, shown); and its text without them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, float, str]] = []
        self.text, self._open = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "data":
            told = dict(attrs)
            self._open = True
            self.found.append((str(told["data-key"]), float(str(told["value"])), ""))

    def handle_data(self, data: str) -> None:
        if self._open:
            key, value, shown = self.found[-1]
            self.found[-1] = (key, value, shown + data)
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._open = False


@pytest.fixture(scope="module")
def results(exported: Path, cohort: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    model = open_model(exported)
    pages, records = Pages(out, model), list[Record]()
    broken = Patient("<b>broken</b>/1", out / "nothing")
    broken.folder.mkdir()
    options = PredictOptions(out, Choice("onnx", "cpu"), PredictSettings(batch_size=2), on_seen=pages.add)
    predict((*cohort.patients[:3], broken), model, options, ignore, records.append)  # type: ignore[attr-defined]
    pages.index(records)
    return out


def wanted(key: str, record: dict[str, object], content: dict[str, object]) -> float:
    """What the JSON says under a page's key."""
    place: object = record
    if key.startswith("limit."):
        limits = content["model"]["out_of_distribution"]  # type: ignore[index]
        if key == "limit.distance":
            return float(limits["distance"])
        _, end, name = key.split(".")
        return next(float(bound[end]) for bound in limits["bounds"] if bound["name"] == name)
    for part in key.split("."):
        place = place[part]  # type: ignore[index]
    return float(place)  # type: ignore[arg-type]


def test_every_number_is_that_of_the_record(results: Path) -> None:
    content = json.loads((results / "predictions.json").read_text())
    graded = [record for record in content["patients"] if record["grade"]]
    assert len(graded) == 3
    for record in graded:
        page = Numbers()
        page.feed((results / "patients" / f"{record['patient']}.html").read_text())
        for key, value, shown in page.found:
            assert value == wanted(key, record, content), key
            assert shown == f"{value:.3f}", key
        keys = {key for key, _, _ in page.found}
        assert keys >= {
            "probability",
            "threshold",
            "distance",
            *(f"statistics.{name}" for name in record["statistics"]),
        }
        for text in (record["patient"], record["grade"], record["verdict"].capitalize(), "This answer needs a reader."):
            assert text in page.text
        assert "never for patients" in page.text
        assert content["model"]["fingerprint"] in page.text
        assert record["inputs"] in page.text


def test_the_index_shows_everybody(results: Path) -> None:
    content = json.loads((results / "predictions.json").read_text())
    text = (results / "report.html").read_text()
    assert "<b>broken" not in text  # an id is no markup
    page = Numbers()
    page.feed(text)
    graded = [record["probability"] for record in content["patients"] if record["grade"]]
    assert sorted(value for key, value, _ in page.found if key == "probability") == sorted(graded)
    assert "missing" in page.text
    assert text.index("&lt;b&gt;broken") < text.index("Phantom_1_")  # refused ones come first
    links = [unescape(link) for link in re.findall(r'href="([^"#]+)"', text)]
    assert sorted(links) == sorted(
        f"patients/{record['patient']}.html" for record in content["patients"] if record["grade"]
    )
    assert all((results / link).is_file() for link in links)


def test_pages_need_nothing_from_elsewhere(results: Path) -> None:
    for file in (results / "report.html", *(results / "patients").iterdir()):
        text = file.read_text()
        assert not re.search(r'(src|href)="(https?:)?//', text)
        assert "url(" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).replace("url(#", "")
        assert "Research use only" in text
        assert all('alt="' in tag for tag in re.findall(r"<img[^>]*>", text))


def test_the_map_lies_on_the_patient(results: Path, patients: tuple[Patient, ...], model: Model) -> None:
    scan = read_scan(patients[0], SETTINGS.data.grid)
    image = nib.load(results / "evidence" / f"{patients[0].id}.nii.gz")
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-4)
    found = np.asarray(image.dataobj)
    assert found.shape == SETTINGS.data.shape
    wanted = occlusion(open_runtime(model, Choice("onnx", "cpu")), scan.data, SETTINGS.data.spacing, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(found).max() > 1e-3
    # The brain's centre in the patient's own file is the centre of the scan's grid, to a voxel of 6 mm.
    own = nib.load(next(patients[0].folder.glob("*_t1.nii.gz")))
    inside = np.argwhere(np.asarray(own.dataobj) != 0)
    middle = own.affine @ [*((inside.min(0) + inside.max(0)) / 2), 1]
    centre = image.affine @ [*((np.array(found.shape) - 1) / 2), 1]
    assert np.abs(middle - centre).max() < 6


class Weighing:
    """A network that adds up the first modality, each voxel with its own weight."""

    device = "cpu"

    def __init__(self, weights: np.ndarray) -> None:
        self.weights, self.batches = weights, set[int]()

    def infer(self, scans: np.ndarray) -> RuntimeOutputs:
        self.batches.add(len(scans))
        logit = (scans[:, 0] * self.weights).sum(axis=(1, 2, 3))
        logits = np.stack([-logit / 2, logit / 2], axis=1).astype(np.float32)
        return RuntimeOutputs(
            logits, np.zeros((len(scans), 1), np.float32), np.zeros((len(scans), 1, 1, 1), np.float32)
        )


@pytest.mark.parametrize("batch_size", [1, 4])
def test_occlusion_by_hand(batch_size: int) -> None:
    """12 mm voxels: cubes of 3, every 2; along 7 voxels they begin at 0, 2, 4, their centres are 1, 3, 5."""
    scan = np.full((4, 7, 7, 7), 0.5, np.float32)
    scan[:, 6] = 0  # no brain there
    weights = np.zeros((7, 7, 7))
    weights[1, 3, 3], weights[5, 5, 1] = 8, -2
    runtime = Weighing(weights)
    found = occlusion(runtime, scan, 12.0, batch_size)
    assert runtime.batches == {batch_size}
    assert found[1, 3, 3] == pytest.approx(4)  # the only cube with voxel (1, 3, 3) at its centre loses 8 x 0.5
    assert found[5, 5, 1] == pytest.approx(-1)
    assert found[2, 3, 3] == pytest.approx(2)  # half way to a centre whose cube loses nothing
    assert found[0, 3, 3] == pytest.approx(4)  # the outermost go on
    assert (found[6] == 0).all()
    assert scan[:, :6].min() == 0.5  # the scan is as it was


def test_between_by_hand() -> None:
    coarse = np.zeros((3, 1, 2), np.float32)
    coarse[1, 0, 0], coarse[2, 0, 1] = 1, 4
    found = between(coarse, [32.0 * np.arange(3), np.zeros(1), 32.0 * np.arange(2)], (80, 8, 40))
    assert found.shape == (80, 8, 40)
    assert found[32, 5, 0] == 1
    assert found[48, 0, 0] == pytest.approx(0.5)
    assert found[79, 0, 0] == 0
    assert found[79, 0, 39] == 4  # beyond the last coarse voxel it goes on
    assert found[48, 0, 16] == pytest.approx((1 + 4) / 4)


def test_without_a_region_by_hand() -> None:
    scan = np.full((4, 3, 3, 3), 0.5, np.float32)
    weights = np.zeros((3, 3, 3))
    weights[1, 1, 1], weights[2, 2, 2] = 8, 4
    region = np.zeros((3, 3, 3), bool)
    region[1, 1, 1] = True
    assert without(Weighing(weights), scan, region, 2) == pytest.approx(2)
    assert scan.min() == 0.5


def test_the_map_on_another_grid_by_hand() -> None:
    """Pieces at voxels 1 and 3 of a scan of 2 mm; the other grid has voxels of 1 mm and begins 1 mm later."""
    found = Occlusion(
        np.array([0, 4], np.float32).reshape(2, 1, 1),
        [np.array([1.0, 3.0]), np.zeros(1), np.zeros(1)],
        np.ones((5, 1, 1), bool),
        0,
    )
    own = np.eye(4)
    own[0, 3] = 1
    values = found.on(own, np.diag([2.0, 2, 2, 1]), (8, 1, 1))[:, 0, 0]
    np.testing.assert_allclose(values, [0, 0, 1, 2, 3, 4, 4, 4])  # at 1, 2, 3 ... mm; the pieces are at 2 and 6 mm


@pytest.mark.parametrize(
    ("voxel", "words"),
    [
        ((0, 0, 0), "left, back, lower part of the brain"),
        ((9, 9, 9), "right, front, upper part of the brain"),
        ((5, 9, 5), "front part of the brain"),
        ((5, 5, 5), "middle of the brain"),
    ],
)
def test_places_in_words(voxel: tuple[int, int, int], words: str) -> None:
    assert in_words(voxel, (11, 11, 11)) == words


def test_a_map_on_the_own_grid_follows_the_file(tmp_path: Path) -> None:
    """The patient's file has its axes swapped and reversed; the map is 1 in one corner."""
    own = np.array([[0, -2.0, 0, 9], [3, 0, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.zeros((7, 6, 5), np.int16), own)
    ras = nib.as_closest_canonical(image)
    evidence = np.zeros(ras.shape, np.float32)
    evidence[0, 0, 0], evidence[1, 2, 1] = 1, -0.25
    write_own(tmp_path / "x.nii.gz", evidence, ras.affine, own)
    found = nib.load(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(found.affine, own, atol=1e-6)
    assert found.shape == (7, 6, 5)
    for index, value in (((0, 0, 0), 1), ((1, 2, 1), -0.25)):
        place = ras.affine @ [*index, 1]
        i, j, k = np.rint(np.linalg.inv(own) @ place)[:3].astype(int)
        assert np.asarray(found.dataobj)[i, j, k] == pytest.approx(value, abs=1e-3)
    nib.save(image, tmp_path / "own.nii.gz")
    np.testing.assert_allclose(own_affine(tmp_path / "own.nii.gz"), own, atol=1e-6)


def test_the_own_grid_is_that_of_the_images(results: Path, patients: tuple[Patient, ...]) -> None:
    own = nib.load(next(patients[0].folder.glob("*_flair.nii.gz")))
    found = nib.load(results / "evidence" / "own-grid" / f"{patients[0].id}.nii.gz")
    assert found.shape == own.shape
    np.testing.assert_allclose(found.affine, own.affine, atol=1e-4)
    inside = np.asarray(own.dataobj) != 0
    assert (np.asarray(found.dataobj)[~inside] == 0).mean() > 0.99  # FLAIR is 0 in a little of the brain
    coarse = nib.load(results / "evidence" / f"{patients[0].id}.nii.gz")
    middle = np.array(found.shape) // 2
    i, j, k = np.rint(np.linalg.inv(coarse.affine) @ found.affine @ [*middle, 1])[:3].astype(int)
    values = np.asarray(found.dataobj), np.asarray(coarse.dataobj)
    assert values[0][tuple(middle)] == pytest.approx(values[1][i, j, k], abs=0.1 * float(np.abs(values[1]).max()))


def test_the_place_is_a_voxel_of_the_file(results: Path, patients: tuple[Patient, ...]) -> None:
    """The voxel that a page names is the strongest of the map on the own grid."""
    page = Numbers()
    page.feed((results / "patients" / f"{patients[0].id}.html").read_text())
    told = re.search(r"voxel (\d+), (\d+), (\d+) of (\S+)", page.text)
    assert told and (patients[0].folder / told[4]).is_file()
    values = np.asarray(nib.load(results / "evidence" / "own-grid" / f"{patients[0].id}.nii.gz").dataobj)
    strongest = values[int(told[1]), int(told[2]), int(told[3])]
    assert strongest == (values.max() if "region speaks for HGG" in page.text else values.min())
    images = open_patient(patients[0])
    assert box_affine(images)[:3, 3] == pytest.approx((images.affine @ [*(part.start for part in images.box), 1])[:3])


@pytest.mark.parametrize(
    ("patient", "name"), [("Brats18_2013_1", None), ("a/b", "a_b-"), ("../x", "_x-"), ("Å b", "__b-"), (".x", "x-")]
)
def test_file_names(patient: str, name: str | None) -> None:
    found = file_name(patient)
    assert found == patient if name is None else found.startswith(name)
    assert re.fullmatch(r"[A-Za-z0-9_][\w.-]*", found)
    assert file_name("a/b") != file_name("a_b") != file_name("a:b")


def test_a_map_is_read_back(tmp_path: Path) -> None:
    evidence = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    affine = np.array([[-1.5, 0, 0, 90], [0, 1.5, 0, -60], [0, 0, 1.5, 7], [0, 0, 0, 1]])
    write_evidence(tmp_path / "x.nii.gz", evidence, affine)
    image = nib.load(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), evidence)
    np.testing.assert_allclose(image.affine, affine)
    assert [path.name for path in tmp_path.iterdir()] == ["x.nii.gz"]
