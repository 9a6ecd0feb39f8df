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
import torch

from deploy.evidence import STEM, on_grid, write_evidence
from deploy.model import Model, open_model
from deploy.pages import Pages, file_name, strongest_slice
from deploy.predict import PredictOptions, predict
from deploy.results import Record
from deploy.runtimes import Choice, open_runtime
from toolkit.config import NetworkSettings, PredictSettings
from toolkit.data.patients import Patient
from toolkit.data.scan import read_scan
from toolkit.training.network import build_network

from .conftest import SETTINGS, ignore


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
        for text in (record["patient"], record["grade"], record["verdict"], "a human has to decide"):
            assert text in page.text
        assert content["model"]["fingerprint"] in page.text
        assert record["inputs"] in page.text


def test_the_index_shows_everybody(results: Path) -> None:
    content = json.loads((results / "predictions.json").read_text())
    text = (results / "report.html").read_text()
    assert "<b>broken" not in text  # an id is no markup
    page = Numbers()
    page.feed(text)
    graded = [record["probability"] for record in content["patients"] if record["grade"]]
    assert [value for key, value, _ in page.found if key == "probability"] == graded
    assert "missing" in page.text
    links = [unescape(link) for link in re.findall(r'href="([^"#]+)"', text)]
    assert len(links) == 3
    assert all((results / link).is_file() for link in links)


def test_pages_need_nothing_from_elsewhere(results: Path) -> None:
    for file in (results / "report.html", *(results / "patients").iterdir()):
        text = file.read_text()
        assert not re.search(r'(src|href)="(https?:)?//', text)
        assert "url(" not in text.replace("url(#", "")
        assert "Research use only" in text
        assert all('alt="' in tag for tag in re.findall(r"<img[^>]*>", text))


def test_the_map_lies_on_the_patient(results: Path, patients: tuple[Patient, ...], model: Model) -> None:
    scan = read_scan(patients[0], SETTINGS.data.grid)
    image = nib.load(results / "evidence" / f"{patients[0].id}.nii.gz")
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-4)
    outputs = open_runtime(model, Choice("onnx", "cpu")).infer(scan.data[None])
    found = np.asarray(image.dataobj)
    assert found.shape == SETTINGS.data.shape
    assert found[0, 0, 0] == pytest.approx(outputs.evidence[0, 0, 0, 0], rel=1e-5)
    # The brain's centre in the patient's own file is the centre of the scan's grid, to a voxel of 6 mm.
    own = nib.load(next(patients[0].folder.glob("*_t1.nii.gz")))
    inside = np.argwhere(np.asarray(own.dataobj) != 0)
    middle = own.affine @ [*((inside.min(0) + inside.max(0)) / 2), 1]
    centre = image.affine @ [*((np.array(found.shape) - 1) / 2), 1]
    assert np.abs(middle - centre).max() < 6


def test_on_grid_by_hand() -> None:
    coarse = np.zeros((3, 1, 2), np.float32)
    coarse[1, 0, 0], coarse[2, 0, 1] = 1, 4
    found = on_grid(coarse, (80, 8, 40), stem_stride=2)
    assert found.shape == (80, 8, 40)
    assert found[32, 5, 0] == 1
    assert found[48, 0, 0] == pytest.approx(0.5)
    assert found[79, 0, 0] == 0
    assert found[79, 0, 39] == 4  # beyond the last coarse voxel it goes on
    assert found[48, 0, 16] == pytest.approx((1 + 4) / 4)
    constant = on_grid(np.full((2, 3, 2), 7, np.float32), (40, 70, 33), stem_stride=1)
    np.testing.assert_allclose(constant, 7, rtol=1e-6)


def test_coarse_voxels_lie_where_the_network_has_them() -> None:
    """The centre of what moves coarse voxel i is scan voxel i x stride."""
    torch.manual_seed(0)
    for stem_stride in (1, 2):
        stride = STEM * stem_stride
        network = build_network(NetworkSettings(depth=10, stem_stride=stem_stride), False, 1.0).eval()
        scan = torch.randn(1, 4, 5 * stride, 32, 32, requires_grad=True)
        for index in (2, 3):
            (gradient,) = torch.autograd.grad(network(scan).evidence[0, index].sum(), scan)
            weight = gradient.square().sum(dim=(0, 1, 3, 4))
            centre = float((weight * torch.arange(len(weight))).sum() / weight.sum())
            assert centre == pytest.approx(index * stride, abs=0.15 * stride)


@pytest.mark.parametrize("hgg", [True, False])
def test_the_strongest_slice_is_inside_the_brain(hgg: bool) -> None:
    scan, evidence = np.zeros((4, 6, 7, 8), np.float32), np.zeros((6, 7, 8), np.float32)
    scan[:, 2:5, 2:5, 2:6] = 1
    evidence[0, 0, 7] = 9 if hgg else -9  # outside the brain
    evidence[3, 4, 5], evidence[2, 2, 3] = 2, -2
    affine = np.array([[-2.0, 0, 0, 10], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    found = strongest_slice(scan, evidence, hgg, affine)
    assert found.z == (5 if hgg else 3)
    assert found.position == ((4, 8, 15) if hgg else (6, 4, 9))


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
