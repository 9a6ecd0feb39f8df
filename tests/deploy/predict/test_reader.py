"""Readers in threads, in processes, and with the preprocessing left to the card: the same patients come out."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import deploy.predict.pipeline
import deploy.runtimes.card
import deploy.runtimes.open
from deploy.export import preparation
from deploy.export.preparation import PreparationGate, write_preparation
from deploy.lanes import Lanes
from deploy.model.folder import Model
from deploy.predict import pace
from deploy.predict.grader import Grader, Timings
from deploy.predict.pace import choose_reading
from deploy.predict.pipeline import PredictOptions, predict
from deploy.predict.reader import Read, Wanted, reader
from deploy.results.record import Record, Seconds
from deploy.runtime import Array, Choice, RuntimeOutputs
from deploy.runtimes.card import LIMIT, Card, prepared_graph
from deploy.runtimes.halving import Halving
from deploy.runtimes.onnx import OnnxRuntime
from deploy.runtimes.open import open_runtime
from tests.campaign import readers as campaign
from tests.deploy.conftest import SETTINGS, ignore
from toolkit.config import PredictSettings, Readers
from toolkit.data.box import Box, box_of, read_box
from toolkit.data.cohort.check import check_patients
from toolkit.data.control import mask_tumour
from toolkit.data.memory import Workspace
from toolkit.data.patients import MODALITIES, Cohort, Patient, find_patients
from toolkit.data.reading.door import Reading, open_patient
from toolkit.data.scan import read_scan
from toolkit.errors import ModelError, OutOfMemory, RuntimeUnavailable

ON_CPU = Choice("onnx", "cpu")
forked = pytest.mark.usefixtures("forked_parts")  # elsewhere readers are started, as for a user


@pytest.fixture(scope="module")
def hostile(faults: Path) -> tuple[Patient, ...]:
    """The repository's hostile patients, sound ones among them."""
    return find_patients([faults])


@pytest.fixture
def runtime(model: Model) -> OnnxRuntime:
    opened = open_runtime(model, ON_CPU)
    assert isinstance(opened, OnnxRuntime)
    return opened


def read_all(patients: Sequence[Patient], wanted: Wanted, readers: Readers) -> list[Read]:
    with threadpool_limits(1, user_api="blas"), reader(patients, wanted, 2, readers) as reads:
        return [read for read in iter(reads.take, None) if read is not None]


def same_but_voxels(one: Read, other: Read) -> None:
    assert (one.patient, one.reason, one.notes, one.inputs) == (other.patient, other.reason, other.notes, other.inputs)
    assert (one.scan is None) == (other.scan is None)
    if one.scan and other.scan:
        assert one.scan.statistics == other.scan.statistics
        assert (one.scan.content, one.scan.missing) == (other.scan.content, other.scan.missing)
        np.testing.assert_array_equal(one.scan.affine, other.scan.affine)


@pytest.fixture(scope="module")
def everybody(cohort: Cohort, hostile: tuple[Patient, ...]) -> tuple[Patient, ...]:
    return (*cohort.patients, *hostile)


@pytest.fixture(scope="module")
def by_threads(everybody: tuple[Patient, ...]) -> list[Read]:
    return read_all(everybody, Wanted(SETTINGS.data.grid), "threads")


def test_processes_read_every_hostile_patient_as_threads_do(
    everybody: tuple[Patient, ...], by_threads: list[Read]
) -> None:
    for one, other in zip(by_threads, read_all(everybody, Wanted(SETTINGS.data.grid), "processes"), strict=True):
        same_but_voxels(one, other)
        if one.scan and other.scan:
            assert one.scan.data.tobytes() == other.scan.data.tobytes()


@forked
def test_the_card_makes_the_scans_that_the_processor_makes(
    everybody: tuple[Patient, ...], by_threads: list[Read], runtime: OnnxRuntime
) -> None:
    card, boxes, worst = Card(runtime, 2), 0, 0.0
    reads = read_all(everybody[::2], Wanted(SETTINGS.data.grid, boxes=True), "processes")
    for one, other in zip(by_threads[::2], reads, strict=True):
        same_but_voxels(one, other)
        if other.box and one.scan:
            boxes += 1
            card.fill(1, other.box)
            worst = max(worst, float(np.abs(card.scans[1:].on_host()[0] - one.scan.data).max()))
        elif other.scan and one.scan:
            assert one.scan.data.tobytes() == other.scan.data.tobytes()
    assert boxes > 0.8 * sum(read.scan is not None for read in reads)
    assert worst < 5e-5


@forked
def test_check_in_processes_finds_what_threads_find(
    hostile: tuple[Patient, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = hostile[::4]
    threads = check_patients(some, ignore, 2)
    monkeypatch.setattr("toolkit.data.workers.choose.MOST_THREADS", 1)
    processes = check_patients(some, ignore, 2)
    for one, other in zip(threads, processes, strict=True):
        assert replace(one, seconds=0.0, content=None) == replace(other, seconds=0.0, content=None)
        np.testing.assert_equal(one.content, other.content)


def records_of(patients: Sequence[Patient], model: Model, out: Path, readers: Readers) -> list[Record]:
    options = PredictOptions(out, ON_CPU, PredictSettings(workers=2, readers=readers))
    records: list[Record] = []
    predict(patients, model, options, ignore, records.append)
    return [record.model_copy(update={"seconds": Seconds(read=0, infer=0)}) for record in records]


@forked
def test_predictions_do_not_depend_on_the_readers(
    hostile: tuple[Patient, ...], patients: tuple[Patient, ...], model: Model, tmp_path: Path
) -> None:
    cohort = (*patients, *hostile[::20])
    threads = records_of(cohort, model, tmp_path / "threads", "threads")
    processes = records_of(cohort, model, tmp_path / "processes", "processes")
    assert threads == processes


def on_card(monkeypatch: pytest.MonkeyPatch) -> list[Card]:
    """Let the processor's ONNX Runtime make scans as a GPU's does."""
    made: list[Card] = []

    class Noted(Card):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(deploy.runtimes.card, "Card", Noted)
    monkeypatch.setattr(deploy.predict.pipeline, "choose_reading", lambda *_: ("processes", True))
    monkeypatch.setattr(deploy.predict.pipeline, "makes_scans", lambda _: True)
    return made


@forked
def test_predictions_on_the_card_are_those_of_the_processor(
    hostile: tuple[Patient, ...],
    patients: tuple[Patient, ...],
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cohort = (*patients, *hostile[::20])
    cpu = records_of(cohort, model, tmp_path / "cpu", "threads")
    made = on_card(monkeypatch)
    card = records_of(cohort, model, tmp_path / "card", "processes")
    assert len(made) == 1
    for one, other in zip(cpu, card, strict=True):
        assert other.probability == pytest.approx(one.probability, abs=1e-5)
        loose = {"probability": None, "distance": None, "explanation": ""}
        assert one.model_copy(update=loose) == other.model_copy(update=loose)


class Half:
    """A runtime that says it computes in half precision, as a card's does."""

    def __init__(self, runtime: OnnxRuntime) -> None:
        self._runtime = runtime
        self.precision = "fp16"

    def __getattr__(self, name: str) -> object:
        return getattr(self._runtime, name)


@forked
def test_a_brain_of_thin_sheets_is_refused_alike(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is large enough for the card, and there is nothing on the grid to take a z-score from."""
    thin, rng = tmp_path / "thin", np.random.default_rng(0)
    thin.mkdir()
    for level, name in enumerate(MODALITIES, start=1):
        voxels = np.zeros((96, 96, 96), np.int16)
        voxels[4:-4, 4:-4, 4:-4:8] = rng.integers(100 * level, 900 * level, (88, 88, 11))
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), thin / f"thin_{name}.nii.gz")  # type: ignore[attr-defined]
    cohort = (*patients[:2], Patient("thin", thin))
    cpu = records_of(cohort, model, tmp_path / "cpu", "threads")
    on_card(monkeypatch)
    monkeypatch.setattr(deploy.predict.pipeline, "Halving", lambda runtime: Half(Halving(runtime)))
    card = records_of(cohort, model, tmp_path / "card", "processes")
    assert [record.reason for record in card] == [record.reason for record in cpu]
    assert card[2].reason == "the brain fills no voxel of the grid, of 6 mm"


@forked
@pytest.mark.parametrize("changed", [False, True])
def test_a_scan_that_the_card_spoils_is_made_by_the_processor(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(patients[1].folder, tmp_path / "p")
    cohort, fill, filled = (patients[0], Patient("p", tmp_path / "p")), Card.fill, list[Box]()
    cpu = records_of(cohort, model, tmp_path / "cpu", "threads")

    def spoilt(card: Card, row: int, box: Box) -> None:
        filled.append(box)
        if len(filled) == 1:
            return fill(card, row, box)
        if changed:
            file = next((tmp_path / "p").glob("*t1ce*"))
            file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), 1))
        return fill(card, row, replace(box, signs=box.signs * np.float32(np.nan)))

    on_card(monkeypatch)
    monkeypatch.setattr(Card, "prove", lambda _: 0.0)
    monkeypatch.setattr(Card, "fill", spoilt)
    monkeypatch.setattr(deploy.predict.pipeline, "Halving", lambda runtime: Half(Halving(runtime)))
    good, bad = records_of(cohort, model, tmp_path / "card", "processes")
    assert good.probability == pytest.approx(cpu[0].probability, abs=1e-5)
    if changed:
        assert bad.reason == "its files changed while it was graded"
    else:
        assert bad.probability == pytest.approx(cpu[1].probability, abs=1e-5)
        assert "it was answered again in fp32" in " ".join(bad.notes)


@forked
def test_a_runtime_without_a_card_gets_finished_scans(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers begin before the runtime is open: where it is another one, they begin again."""
    cpu = records_of(patients, model, tmp_path / "cpu", "threads")
    monkeypatch.setattr(deploy.predict.pipeline, "choose_reading", lambda *_: ("processes", True))
    again = records_of(patients, model, tmp_path / "again", "processes")
    assert cpu == again


class Other:
    """A runtime of which the first answers fail."""

    def __init__(self, runtime: OnnxRuntime, fails: int) -> None:
        self._runtime, self._fails = runtime, fails
        self.name, self.device, self.precision, self.chosen = "onnx", "cuda:0", "fp16", "chosen."
        self.engine_hash = ""

    def infer(self, scans: Array) -> RuntimeOutputs:
        if len(scans) > 1 and self._fails:
            raise OutOfMemory("full.")
        outputs = self._runtime.infer(scans)
        return outputs if self._fails else outputs._replace(logits=outputs.logits * np.nan)


@forked
@pytest.mark.parametrize("fails", [0, 1])
def test_a_batch_on_the_card_is_halved_and_answered_again_in_fp32(
    patients: tuple[Patient, ...], model: Model, runtime: OnnxRuntime, fails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy.predict.grader, "open_runtime", lambda *_: runtime)
    card = Card(runtime, 3)
    grader = Grader(model, Halving(Other(runtime, fails)), 3, Timings(), card)
    for read in read_all(patients[:3], Wanted(model.manifest.grid, boxes=True), "processes"):
        grader.add(read)
    assert grader.full
    wanted = [runtime.infer(read_scan(one, model.manifest.grid).data[None]).logit[0] for one in patients[:3]]
    calibration = model.manifest.calibration
    for graded, logit in zip(grader.run(), wanted, strict=True):
        assert graded.record.probability == pytest.approx(float(calibration.probability(logit)), abs=1e-5)
        assert ("in fp32" in " ".join(graded.record.notes)) == (fails == 0)


def test_preparation_that_differs_is_refused(runtime: OnnxRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Card(runtime, 1).prove() < LIMIT
    monkeypatch.setitem(preparation._NUMBERS, "smallest", np.float32(1e5))  # as if the deviation were computed wrongly
    monkeypatch.setattr(deploy.runtimes.card, "prepared_graph", write_preparation)
    with pytest.raises(RuntimeUnavailable, match=r'differs by .* in a z-score .* readers = "threads"'):
        Card(runtime, 1).prove()


def test_the_graphs_in_the_package_are_those_that_are_written() -> None:
    for kind, content in preparation.graphs().items():
        assert prepared_graph(kind) == content, "run python -m deploy.export.preparation"


def test_the_card_needs_no_onnx() -> None:
    """The image for prediction is built without it."""
    code = "import sys; sys.modules['onnx'] = None; import deploy.runtimes.card"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


def test_the_export_compares_the_card_with_the_processor(
    patients: tuple[Patient, ...], runtime: OnnxRuntime, model: Model
) -> None:
    scan = read_scan(patients[0], model.manifest.grid)
    answer = runtime.infer(scan.data[None])
    other = runtime.infer(read_scan(patients[1], model.manifest.grid).data[None])
    with Lanes(2) as lanes:
        gate = PreparationGate(model, runtime, lanes)
        # The second is asked about before the first is judged: each keeps its own scan.
        asked = [gate.ask(patient, read_scan(patient, model.manifest.grid)) for patient in patients[:2]]
        moved = gate.ask(patients[0], replace(scan, data=scan.data + np.float32(0.01)))
        for patient, made, found in zip(patients, asked, (answer, other), strict=False):
            gate.patient(patient.id, made, found)
        with pytest.raises(ModelError, match=rf"differs for patient {patients[0].id} by 0\.01 in a z-score"):
            gate.patient(patients[0].id, moved, answer)
        with pytest.raises(ModelError, match="in probability, more than"):
            gate.patient(patients[0].id, asked[0], answer._replace(logits=answer.logits * 2))


def test_the_export_compares_the_card_on_the_first_few_patients(
    patients: tuple[Patient, ...], runtime: OnnxRuntime, model: Model
) -> None:
    scan = read_scan(patients[0], model.manifest.grid)
    with Lanes(1) as lanes:
        gate = PreparationGate(model, runtime, lanes)
        asked = [gate.ask(patients[0], scan) for _ in range(preparation.MOST + 1)]
    assert [one is None for one in asked] == [False] * preparation.MOST + [True]
    gate.patient("P", None, runtime.infer(scan.data[None]))


def changed(patient: Patient, folder: Path, dtype: type, scale: float, offset: float) -> Patient:
    shutil.copytree(patient.folder, folder)
    for file in folder.glob("*.nii*"):
        image = nib.load(file)
        voxels = (np.asarray(image.dataobj) * scale + offset).astype(dtype)  # type: ignore[attr-defined]
        file.unlink()
        nib.save(nib.Nifti1Image(voxels, image.affine), folder / f"{file.name.split('.')[0]}.nii")  # type: ignore[attr-defined]
    return Patient(folder.name, folder)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset", "made"),
    [
        (np.int16, 1, 0, np.int16),
        (np.int16, 1, -1000, np.float32),
        (np.uint16, 10, 0, np.float32),
        (np.float32, 0.01, 0.5, np.float32),
        (np.float64, 1e3, 0, np.float32),
        (np.int32, 1000, 0, np.float32),
        (np.float64, 1e30, 0, None),
        (np.float32, 1e-16, 0, None),
    ],
)
def test_ordinary_voxels_alone_are_left_to_the_card(
    patients: tuple[Patient, ...],
    runtime: OnnxRuntime,
    tmp_path: Path,
    dtype: type,
    scale: float,
    offset: float,
    made: type | None,
) -> None:
    patient = changed(patients[0], tmp_path / "p", dtype, scale, offset)
    grid = runtime.model.manifest.grid
    scan, box = read_box(patient, grid)
    wanted = read_scan(patient, grid)
    assert scan.notes == wanted.notes
    if made is None:
        assert box is None
        np.testing.assert_array_equal(scan.data, wanted.data)
        return
    assert box is not None
    assert box.voxels.dtype == made
    card = Card(runtime, 1)
    card.fill(0, box)
    np.testing.assert_allclose(card.scans.on_host()[0], wanted.data, atol=5e-5)


def test_a_missing_modality_stays_zero_on_the_card(
    patients: tuple[Patient, ...], runtime: OnnxRuntime, tmp_path: Path
) -> None:
    shutil.copytree(patients[0].folder, tmp_path / "p")
    next((tmp_path / "p").glob("*_t1.nii*")).unlink()
    patient, grid, how = Patient("p", tmp_path / "p"), runtime.model.manifest.grid, Reading(optional=("t1",))
    box = box_of(open_patient(patient, how), grid, Workspace())
    assert box is not None
    card = Card(runtime, 1)
    card.fill(0, box)
    scan = card.scans.on_host()[0]
    assert not scan[MODALITIES.index("t1")].any()
    np.testing.assert_allclose(scan, read_scan(patient, grid, how).data, atol=5e-5)


def test_what_reads_follows_from_gpu_cores_and_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    auto, anywhere = PredictSettings(), Choice()
    monkeypatch.setattr(pace, "gpu_shown", lambda: False)
    assert choose_reading(auto, anywhere, 16, 1000) == ("threads", False)
    assert choose_reading(PredictSettings(readers="processes"), anywhere, 2, 3) == ("processes", False)
    monkeypatch.setattr(pace, "gpu_shown", lambda: True)
    assert choose_reading(auto, anywhere, 16, 1000) == ("processes", True)
    assert choose_reading(auto, anywhere, 2, pace.LEAST_ON_CARD) == ("processes", True)
    assert choose_reading(auto, anywhere, 2, pace.LEAST_ON_CARD - 1) == ("auto", False)
    assert choose_reading(auto, anywhere, 1, 1000) == ("auto", False)
    assert choose_reading(auto, Choice(device="cpu"), 16, 1000) == ("threads", False)
    assert choose_reading(auto, Choice("tensorrt"), 16, 1000) == ("auto", False)
    assert choose_reading(PredictSettings(readers="threads"), anywhere, 16, 1000) == ("threads", False)


@forked
def test_an_edit_and_pages_need_the_scan_on_the_host(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = on_card(monkeypatch)
    settings = PredictSettings(workers=2, readers="processes")
    shown: list[float] = []
    options = PredictOptions(
        tmp_path / "a", ON_CPU, settings, on_seen=lambda _, seen: shown.append(seen.scan.data.std())
    )
    predict(patients[:2], model, options, ignore, ignore)
    assert all(value > 0 for value in shown)
    assert len(shown) == 2
    options = PredictOptions(tmp_path / "b", ON_CPU, settings, edit=mask_tumour)
    assert predict(patients[:2], model, options, ignore, ignore).graded == 2
    assert made == []


def test_killed_readers_and_killed_predictions(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    """A sample of `python -m tests.campaign readers`."""
    assert campaign.main(model.folder, campaign.Scale(patients=40, readers=3, parents=1, spacing=4.0)) == 0
    assert "40 patients, 3 kills of readers and 1 of grade predict: 0 wrong" in capsys.readouterr().out
