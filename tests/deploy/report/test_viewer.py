"""The viewer of a page, in Chromium: it draws, the keyboard scrolls it, and nothing leaves the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.model.folder import Model
from deploy.predict.pipeline import PredictOptions, predict
from deploy.report.index import write_index
from deploy.report.pages import Pages
from deploy.report.viewer import grey, niivue, pack
from deploy.results.record import Record, Seconds
from deploy.runtime import Choice
from tests.chrome import ABSENT, PROGRAM, Chrome
from tests.deploy.conftest import ignore
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient
from toolkit.data.reading.door import open_patient

READY = "document.getElementById('viewer')?.dataset.ready === 'yes'"
VOXEL = "document.getElementById('viewer').dataset.voxel"


@pytest.fixture(scope="module")
def pages(exported: Path, cohort: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One page with the viewer next to it, one that holds it."""
    from deploy.model.folder import open_model

    out = tmp_path_factory.mktemp("viewer")
    patients = cohort.patients  # type: ignore[attr-defined]
    for name, single in (("apart", False), ("single", True)):
        (out / name).mkdir()
        model, records = open_model(exported), list[Record]()
        made = Pages(out / name, model, single)
        options = PredictOptions(out / name, Choice("onnx", "cpu"), PredictSettings(), on_seen=made.add)
        predict(patients[:1], model, options, ignore, records.append)
        made.index(records)
    return out


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    if PROGRAM is None:
        pytest.skip(ABSENT)
    with Chrome() as browser:
        yield browser


def page(folder: Path) -> Path:
    return next((folder / "patients").iterdir())


def drawn(browser: Chrome, name: str) -> np.ndarray:
    """A canvas as it is on the screen, uint8 (height, width, 3)."""
    canvas = f"document.querySelector('canvas[data-part={name}]')"
    box = f"(box => [box.x + scrollX, box.y + scrollY, box.width, box.height])({canvas}.getBoundingClientRect())"
    x, y, width, height = browser.ask(box)
    shot = browser.shot({"x": x, "y": y, "width": width, "height": height, "scale": 1})
    return np.asarray(Image.open(BytesIO(shot)).convert("RGB"))


def lit(browser: Chrome, name: str) -> float:
    """Share of a canvas that is not black."""
    return float((drawn(browser, name).mean(axis=-1) > 40).mean())


def test_four_modalities_are_drawn_and_keys_scroll(pages: Path, chrome: Chrome) -> None:
    chrome.requests.clear()
    chrome.open(page(pages / "apart"), READY)
    for name in ("flair", "t1", "t1ce", "t2"):
        assert 0.05 < lit(chrome, name) < 0.9, name
    x, y, z = map(int, chrome.ask(VOXEL).split())
    chrome.press("ArrowDown")
    assert chrome.ask(VOXEL) == f"{x} {y} {z - 1}"
    chrome.press("ArrowUp")
    chrome.press("s")
    chrome.press("ArrowUp")
    assert chrome.ask(VOXEL) == f"{x + 1} {y} {z}"
    assert f"sagittal slice {x + 2} of" in chrome.ask("document.querySelector('[data-part=told]').textContent")
    chrome.press("Home")
    chrome.press("3")
    shown = "[...document.querySelectorAll('[data-tile]')].filter(one => one.offsetParent).map(one => one.dataset.tile)"
    assert chrome.ask(shown) == ["t1ce"]
    assert lit(chrome, "t1ce") > 0.05
    chrome.press("Escape")
    assert len(chrome.ask(shown)) == 4
    # Files next to the page, and nothing else.
    outside = [one for one in chrome.requests if not one.startswith(("data:", "blob:", pages.resolve().as_uri()))]
    assert outside == []
    assert any(one.endswith("assets/niivue.umd.js") for one in chrome.requests)


def coloured(browser: Chrome, name: str) -> float:
    """Share of a canvas that is orange or blue: evidence."""
    red, _, blue = (channel.astype(int) for channel in np.moveaxis(drawn(browser, name), -1, 0))
    return float((abs(red - blue) > 40).mean())


def set_contrast(browser: Chrome, value: float) -> None:
    slider = "document.querySelector('[data-part=contrast]')"
    browser.ask(f"(at => {{ at.value = {value}; at.dispatchEvent(new Event('input')); }})({slider})")


def mouse(browser: Chrome, name: str, kinds: str, place: float, **more: object) -> None:
    """Events of the mouse at a place on a canvas, 0 to 1 from its upper left corner to its lower right."""
    canvas = f"document.querySelector('canvas[data-part={name}]')"
    x, y, width, height = browser.ask(f"(b => [b.x, b.y, b.width, b.height])({canvas}.getBoundingClientRect())")
    for kind in kinds.split():
        given = {"type": f"mouse{kind}", "x": x + place * width, "y": y + place * height, **more}
        browser.call("Input.dispatchMouseEvent", **given)


@pytest.mark.parametrize("contrast", [-2, 2, None])
def test_a_window_hides_no_evidence(pages: Path, chrome: Chrome, contrast: float | None) -> None:
    """Set by the slider, or by the right button that is dragged over a few voxels."""
    chrome.open(page(pages / "apart"), READY)
    chrome.ask("document.getElementById('viewer').scrollIntoView()")
    before = drawn(chrome, "t2"), coloured(chrome, "t2")
    assert before[1] > 0.01
    if contrast is None:
        right = {"button": "right", "buttons": 2, "clickCount": 1}
        mouse(chrome, "t2", "Moved Pressed", 0.4, **right)
        mouse(chrome, "t2", "Moved Released", 0.5, **right)
    else:
        set_contrast(chrome, contrast)
    chrome.wait("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
    after = drawn(chrome, "t2")
    assert abs(after.astype(int) - before[0]).mean() > 2
    assert coloured(chrome, "t2") == pytest.approx(before[1], rel=0.1)
    assert after[-40:-10, 20:60].max() < 10  # beside the brain all stays black


def test_enlarging_keeps_the_window(pages: Path, chrome: Chrome) -> None:
    chrome.open(page(pages / "apart"), READY)
    chrome.ask("document.getElementById('viewer').scrollIntoView()")
    set_contrast(chrome, 2)
    before = lit(chrome, "t2")
    for shown in (1, 4):  # enlarged, and back
        for count in (1, 2):
            mouse(chrome, "t2", "Pressed Released", 0.3, button="left", clickCount=count)
        found = "[...document.querySelectorAll('[data-tile]')].filter(one => one.offsetParent).length"
        assert chrome.ask(found) == shown
    chrome.press("Home")
    assert lit(chrome, "t2") == pytest.approx(before, abs=0.01)


def test_a_single_file_needs_nothing_next_to_it(pages: Path, chrome: Chrome, tmp_path: Path) -> None:
    alone = tmp_path / "alone.html"
    alone.write_bytes(page(pages / "single").read_bytes())
    assert not (pages / "single" / "assets" / "niivue.umd.js").exists()
    chrome.requests.clear()
    chrome.open(alone, READY)
    assert lit(chrome, "flair") > 0.05
    assert [one for one in chrome.requests if not one.startswith(("data:", "blob:"))] == [alone.resolve().as_uri()]


def test_without_webgl_the_still_pictures_stay(pages: Path) -> None:
    if PROGRAM is None:
        pytest.skip(ABSENT)
    with Chrome(390, dark=True, webgl=False) as browser:
        browser.open(page(pages / "apart"), "document.getElementById('no-viewer')?.hidden === false")
        assert browser.ask("document.querySelector('.still').offsetHeight") > 300
        assert browser.ask("document.getElementById('viewer').offsetHeight") == 0
        assert browser.ask("document.documentElement.scrollWidth") <= 390


def restored(rest: np.ndarray) -> np.ndarray:
    """As the page's script does it, voxel by voxel."""
    found = np.zeros([size + 1 for size in rest.shape], np.uint8)
    for z, y, x in np.ndindex(rest.shape[::-1]):
        near = sorted((found[x, y + 1, z + 1], found[x + 1, y, z + 1], found[x + 1, y + 1, z]))
        found[x + 1, y + 1, z + 1] = (int(rest[x, y, z]) + int(near[1])) % 256
    return found[1:, 1:, 1:]


def test_packed_voxels_are_restored_by_their_rule() -> None:
    import base64
    import gzip

    voxels = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)
    packed = pack(voxels, np.eye(4))
    rest = np.frombuffer(gzip.decompress(base64.b64decode(packed.voxels)), np.uint8).reshape(voxels.shape, order="F")
    np.testing.assert_array_equal(restored(rest), voxels)
    head = base64.b64decode(packed.head)
    assert len(head) == 352 and head[344:347] == b"n+1"


def test_greys_keep_the_order_of_the_image(patients: tuple[Patient, ...]) -> None:
    images = open_patient(patients[0])
    found, white = grey(images, "t1", 127)
    assert found[~images.mask].max(initial=0) == 0
    assert found[images.mask].min() >= 1 and found.max() == 127
    assert 1 < white <= 128
    inside = images.voxels["t1"][images.mask].astype(float), found[images.mask].astype(float)
    order = np.argsort(inside[0], kind="stable")
    assert (np.diff(inside[1][order]) >= 0).all()


def test_the_scene_names_the_region(pages: Path, model: Model) -> None:
    text = page(pages / "apart").read_text()
    scene = json.loads(text.split('id="scene">')[1].split("</script>")[0])
    assert scene["shape"] and len(scene["voxel"]) == 3 and scene["scale"] > 0
    assert list(scene["images"]) == list(model.manifest.modalities)
    assert len(niivue()) == (pages / "apart" / "assets" / "niivue.umd.js").stat().st_size
    assert "BSD 2-Clause" in (pages / "apart" / "assets" / "niivue-licence.txt").read_text()


def test_the_index_finds_patients(model: Model, tmp_path: Path, chrome: Chrome) -> None:
    """120 patients: search, chips, sorting, and pages of 50 rows."""
    seconds = Seconds(read=0, infer=0)
    records = [
        Record(
            patient=f"p{number}",
            folder="",
            grade=None if number % 10 == 0 else ("LGG", "HGG")[number % 2],
            probability=None if number % 10 == 0 else number / 200,
            threshold=0.5,
            verdict=None if number % 10 == 0 else "single grade" if number % 3 else "uncertain",
            reason="t2 is empty" if number % 10 == 0 else "",
            runtime="onnx fp32 cpu",
            seconds=seconds,
        )
        for number in range(120)
    ]
    write_index(tmp_path, records, model)
    chrome.open(tmp_path / "report.html")
    shown = "document.getElementById('shown').textContent"
    first = "document.querySelector('#patients tbody tr').cells[0].textContent"
    assert (chrome.ask(shown), chrome.ask(first)) == ("1 to 50 of 120", "p0")  # refused first, 0 before 10
    chrome.ask("document.querySelector('[data-step=\"1\"]').click()")
    assert chrome.ask(shown) == "51 to 100 of 120"
    chrome.ask("document.getElementById('words').focus()")
    for letter in "empty":
        chrome.press(letter)
    assert chrome.ask(shown) == "1 to 12 of 12"
    chrome.ask("words.value = ''; words.dispatchEvent(new Event('input'))")
    chrome.ask("document.querySelector('button[data-verdict=uncertain]').click()")
    uncertain = [record for record in records if record.verdict == "uncertain"]
    assert chrome.ask(shown) == f"1 to {len(uncertain)} of {len(uncertain)}"
    chrome.ask("document.querySelector('button[data-grade=HGG]').click()")
    both = [record for record in uncertain if record.grade == "HGG"]
    assert chrome.ask(shown) == f"1 to {len(both)} of {len(both)}"
    for end in (min, max):  # rising, then falling
        chrome.ask("document.querySelectorAll('#patients th button')[3].click()")
        assert chrome.ask(first) == end(both, key=lambda record: record.probability or 0).patient
