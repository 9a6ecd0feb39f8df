"""From patient folders to results."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deploy.predict.grader
import deploy.predict.pipeline
import deploy.predict.reader
from deploy.model.folder import Model
from deploy.predict.pipeline import PredictOptions, Summary, predict
from deploy.results.record import Record
from deploy.runtime import Array, Choice, Runtime, RuntimeOutputs
from deploy.runtimes.open import open_runtime
from tests.deploy.conftest import SETTINGS, ignore
from toolkit.config import Grid, PredictSettings
from toolkit.data.patients import Patient
from toolkit.data.scan import Scan, read_scan
from toolkit.errors import GradeError, ModelError, OutOfMemory, RuntimeUnavailable, SettingsError
from toolkit.training.runs.run import Run

ON_CPU = Choice("onnx", "cpu")


def grade(
    patients: Sequence[Patient], model: Model, out: Path, batch_size: int | None = None, workers: int | None = None
) -> tuple[Summary, list[Record]]:
    options = PredictOptions(out, ON_CPU, PredictSettings(batch_size=batch_size, workers=workers))
    records: list[Record] = []
    return predict(patients, model, options, ignore, records.append), records


def damaged(patient: Patient, folder: Path, without: str) -> Patient:
    shutil.copytree(patient.folder, folder / "damaged")
    for file in (folder / "damaged").glob(f"*_{without}.nii*"):
        file.unlink()
    return Patient("damaged", folder / "damaged")


def test_probabilities_are_the_trained_networks(
    patients: tuple[Patient, ...], model: Model, run: Run, tmp_path: Path
) -> None:
    summary, records = grade(patients, model, tmp_path)
    scans = np.stack([read_scan(patient, SETTINGS.data.grid).data for patient in patients])
    with torch.inference_mode():
        logits = run.load_best()(torch.from_numpy(scans)).logits.double().numpy()
    wanted = 1 / (1 + np.exp(-(logits[:, 1] - logits[:, 0] + run.calibration().b)))
    np.testing.assert_allclose([record.probability for record in records], wanted, atol=1e-4)
    assert [record.grade for record in records] == ["HGG" if p >= 0.5 else "LGG" for p in wanted]
    assert (summary.graded, summary.refused) == (6, 0)
    assert 0 < summary.timings.infer < summary.timings.total


def test_order_and_answers_do_not_depend_on_batch_or_workers(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path
) -> None:
    _, alone = grade(patients, model, tmp_path, batch_size=1, workers=1)
    for batch_size, workers in ((2, 3), (3, 1), (3, 4)):
        _, records = grade(patients, model, tmp_path, batch_size, workers)
        assert [record.patient for record in records] == [patient.id for patient in patients]
        for ours, theirs in zip(records, alone, strict=True):
            assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)
    _, turned = grade(patients[::-1], model, tmp_path, batch_size=3)
    by_id = {record.patient: record.probability for record in turned}
    assert [by_id[record.patient] for record in alone] == pytest.approx([r.probability for r in alone], abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_refused_patient_does_not_end_the_batch(
    batch_size: int, patients: tuple[Patient, ...], model: Model, tmp_path: Path
) -> None:
    bad = damaged(patients[0], tmp_path, without="t2")
    order = (bad, patients[0], patients[1], bad, patients[2], bad)
    summary, records = grade(order, model, tmp_path / "out", batch_size)
    assert [record.patient for record in records] == [patient.id for patient in order]
    assert [record.grade is None for record in records] == [True, False, False, True, False, True]
    assert (summary.graded, summary.refused) == (3, 3)
    assert "t2 missing" in records[0].reason
    _, whole = grade(patients[:3], model, tmp_path / "alone")
    assert [r.probability for r in records if r.grade] == pytest.approx([r.probability for r in whole], abs=1e-5)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(5, "Input/output error"), "Input/output error"), (MemoryError(), "not enough memory")],
)
def test_a_disk_or_memory_error_refuses_one_patient(
    error: Exception,
    reason: str,
    patients: tuple[Patient, ...],
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(patient: Patient, grid: Grid, *more: Any) -> Scan:
        if patient is patients[1]:
            raise error
        return read_scan(patient, grid, *more)

    monkeypatch.setattr(deploy.predict.reader, "read_scan", failing)
    _, records = grade(patients[:3], model, tmp_path)
    assert [bool(record.reason) for record in records] == [False, True, False]
    assert reason in records[1].reason


def test_no_more_scans_are_read_than_workers_and_two_batches(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, begun, done, most = threading.Lock(), 0, 0, 0

    def counting(patient: Patient, grid: Grid, *more: Any) -> Scan:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - done)
        return read_scan(patient, grid, *more)

    def finished(_: Record) -> None:
        nonlocal done
        time.sleep(0.02)  # gives the readers time to run too far ahead, if they would
        done += 1

    monkeypatch.setattr(deploy.predict.reader, "read_scan", counting)
    options = PredictOptions(tmp_path, ON_CPU, PredictSettings(batch_size=2, workers=1))
    predict(patients * 4, model, options, ignore, finished)
    assert begun == 24
    assert most <= 1 + 2 * 2


class Broken:
    """Answers nothing for the scan whose first brain voxel is the given one."""

    def __init__(self, inner: Runtime, victim: Array, precision: str) -> None:
        self.inner, self.victim = inner, victim
        self.name, self.device, self.precision, self.chosen = inner.name, inner.device, precision, inner.chosen
        self.engine_hash = inner.engine_hash

    def infer(self, scans: Array) -> RuntimeOutputs:
        outputs = self.inner.infer(scans)
        logits = outputs.logits.copy()
        for row, scan in enumerate(scans):
            if np.array_equal(scan, self.victim):
                logits[row] = np.nan
        return outputs._replace(logits=logits)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_no_number_is_asked_for_again_in_fp32_or_refused(
    precision: str, patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = read_scan(patients[1], SETTINGS.data.grid).data
    asked: list[Choice] = []

    def opener(model: Model, choice: Choice) -> Runtime:
        asked.append(choice)
        runtime = open_runtime(model, choice)
        return Broken(runtime, victim, precision) if len(asked) == 1 else runtime

    monkeypatch.setattr(deploy.predict.pipeline, "open_runtime", opener)
    monkeypatch.setattr(deploy.predict.grader, "open_runtime", opener)
    _, records = grade(patients[:3], model, tmp_path / "out", batch_size=3)
    monkeypatch.undo()
    _, wanted = grade(patients[:3], model, tmp_path / "out", batch_size=3)
    if precision == "fp32":
        assert records[1].reason == "the network's answer is not a number"
        assert records[1].grade is records[1].probability is None
        assert len(asked) == 1
    else:
        assert asked[1:] == [Choice("onnx", "cpu", "fp32")]
        assert records[1].probability == pytest.approx(wanted[1].probability, abs=1e-5)
        assert "answered again in fp32" in records[1].notes[-1]
        assert records[1].runtime == "onnx fp32 cpu"
    for row in (0, 2):
        assert records[row].probability == pytest.approx(wanted[row].probability, abs=1e-5)


class Cramped(Broken):
    """Says that it is on a GPU, whose memory takes two scans."""

    def __init__(self, inner: Runtime) -> None:
        super().__init__(inner, np.zeros(0, np.float32), "fp16")
        self.device, self.asked = "cuda:0", list[int]()

    def infer(self, scans: Array) -> RuntimeOutputs:
        self.asked.append(len(scans))
        if len(scans) > 2:
            raise OutOfMemory("too much")
        return self.inner.infer(scans)


def test_a_batch_is_halved_when_memory_does_not_suffice(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cramped = Cramped(open_runtime(model, ON_CPU))
    _, wanted = grade(patients, model, tmp_path / "out", batch_size=3)
    monkeypatch.setattr(deploy.predict.pipeline, "open_runtime", lambda *_: cramped)
    summary, records = grade(patients, model, tmp_path / "out", batch_size=3)
    assert summary.plan.batch_size == 1  # seen in the self-test: 3 was too much, a half is 1
    assert cramped.asked == [3, 1, 1, 1] + 6 * [1]
    for ours, theirs in zip(records, wanted, strict=True):
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)


def test_interrupted_and_resumed(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was graded is not read again, who was refused is; files and order are those of one call."""
    bad = damaged(patients[0], tmp_path, without="t2")
    order = (patients[0], bad, *patients[1:])
    grade(order, model, tmp_path / "whole")

    def stop(record: Record) -> None:
        if record.patient == patients[2].id:
            raise KeyboardInterrupt

    options = PredictOptions(tmp_path / "parts", ON_CPU, PredictSettings(), resume=True)
    with pytest.raises(KeyboardInterrupt):
        predict(order, model, options, ignore, stop)
    half = json.loads((tmp_path / "parts" / "predictions.json").read_text())
    assert half["complete"] is False
    assert len(half["patients"]) == 4

    read, read_one = list[str](), deploy.predict.reader.read_scan

    def noted(patient: Patient, grid: Grid, *more: Any) -> Scan:
        read.append(patient.id)
        return read_one(patient, grid, *more)

    monkeypatch.setattr(deploy.predict.reader, "read_scan", noted)
    summary = predict(order, model, options, ignore, ignore)
    assert (summary.graded, summary.refused, summary.kept) == (6, 1, 3)
    assert sorted(read) == sorted(["damaged", *(patient.id for patient in patients[3:])])
    tables = [(tmp_path / name / "predictions.csv").read_text().splitlines() for name in ("whole", "parts")]
    assert [row.rsplit(",", 1)[0] for row in tables[0]] == [row.rsplit(",", 1)[0] for row in tables[1]]
    grade(order, model, tmp_path / "parts")  # without --resume everything is done again
    assert len(read) == 4 + 7


def test_results_that_cannot_be_written_stop_before_any_work(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy.predict.reader, "read_scan", lambda *_: pytest.fail("a patient was read"))
    (tmp_path / "file").write_text("")
    with pytest.raises(GradeError, match="results cannot be written"):
        grade(patients, model, tmp_path / "file")


def test_what_is_asked_for_and_not_there_is_an_error(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path
) -> None:
    settings = PredictSettings(batch_size=4)
    with pytest.raises(SettingsError, match=r"predict\.batch_size = 4, but the model takes batches up to 3"):
        predict(patients, model, PredictOptions(tmp_path, ON_CPU, settings), ignore, ignore)
    with pytest.raises(RuntimeUnavailable, match="device cuda:1"):
        options = PredictOptions(tmp_path, Choice("auto", "cuda:1"), PredictSettings())
        predict(patients, model, options, ignore, ignore)


def test_nobody_is_graded_after_a_failed_selftest(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(scans: Array) -> RuntimeOutputs:
        return open_runtime(model, ON_CPU).infer(scans * np.float32(1.5))

    def opener(model: Model, choice: Choice) -> Runtime:
        runtime = open_runtime(model, choice)
        runtime.infer = wrong  # type: ignore[method-assign]
        return runtime

    monkeypatch.setattr(deploy.predict.pipeline, "open_runtime", opener)
    with pytest.raises(ModelError, match="self-test failed"):
        grade(patients, model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_runtime_is_told_how_many_scans_wait(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int | None] = []

    def opened(model: Model, choice: Choice) -> Runtime:
        told.append(choice.scans)
        return open_runtime(model, choice)

    monkeypatch.setattr(deploy.predict.pipeline, "open_runtime", opened)
    first = PredictOptions(tmp_path / "plain", ON_CPU, PredictSettings(workers=1))
    pages = replace(first, results=tmp_path / "pages", on_seen=lambda *_: None)
    for options in (first, pages, replace(first, resume=True)):
        predict(patients[:2], model, options)
    assert told == [2, 300, 0]


def test_the_record_names_model_and_runtime(patients: tuple[Patient, ...], model: Model, tmp_path: Path) -> None:
    grade(patients[:2], model, tmp_path)
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content["model"]["fingerprint"] == model.fingerprint
    assert content["versions"]["numpy"] == np.__version__
    assert content["runtime"].startswith("ONNX Runtime on the CPU in fp32")
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["patient"] for row in rows] == [patient.id for patient in patients[:2]]
    assert float(rows[0]["probability"]) == pytest.approx(content["patients"][0]["probability"], abs=1e-6)
    assert {row["verdict"] for row in rows} == {"undetermined"}


def test_prediction_loads_no_heavy_library(patients: tuple[Patient, ...], model: Model, tmp_path: Path) -> None:
    heavy = ("torch", "monai", "sklearn", "pandas", "matplotlib", "onnx")
    for name in heavy:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported: ' + __name__)")
    # nibabel looks whether there is a scipy, which loads a small part of it; the large parts must stay out.
    heavy += ("scipy.linalg", "scipy.ndimage", "scipy.optimize", "scipy.special", "scipy.stats")
    program = f"""
import sys
from pathlib import Path
from deploy.model.folder import open_model
from deploy.predict.pipeline import PredictOptions, predict
from deploy.runtime import Choice
from toolkit.config import PredictSettings
from toolkit.data.patients import find_patients
options = PredictOptions(Path({str(tmp_path / "out")!r}), Choice(), PredictSettings())
model = open_model(Path({str(model.folder)!r}))
summary = predict(find_patients([Path({str(patients[0].folder)!r})]), model, options, lambda _: None, lambda _: None)
loaded = sorted(set({heavy!r}) & set(sys.modules))
print(summary.graded, loaded)
"""
    root = str(Path(deploy.predict.pipeline.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split("\n")[0] == "1 []", done.stderr


@pytest.mark.parametrize("below", ["", "results", "engines/deep"])
def test_results_do_not_go_into_the_model(
    patients: tuple[Patient, ...], model: Model, tmp_path: Path, below: str
) -> None:
    before = sorted(model.folder.rglob("*"))
    (tmp_path / "link").symlink_to(model.folder)
    for folder in (model.folder, tmp_path / "link"):
        with pytest.raises(SettingsError, match=r"is inside the model .* name another folder with --out"):
            grade(patients[:1], model, folder / below)
    assert sorted(model.folder.rglob("*")) == before
