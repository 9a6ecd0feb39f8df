"""Batch size and readers follow from what was measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.model.folder import Model
from deploy.predict import pace
from deploy.predict.pace import find_pace
from deploy.predict.reader import Read
from deploy.runtime import Array, Choice, RuntimeOutputs
from deploy.runtimes.halving import Halving
from deploy.runtimes.open import open_runtime
from toolkit.config import PredictSettings
from toolkit.data.ahead import Ahead
from toolkit.data.patients import Patient
from toolkit.errors import SettingsError

PATIENTS = [Patient(f"p{n}", Path(f"p{n}")) for n in range(6)]


class Timed:
    """Answers as the CPU does, and takes so many seconds for a batch."""

    def __init__(self, model: Model, device: str, seconds: dict[int, float]) -> None:
        self._exact = open_runtime(model, Choice("onnx", "cpu", "fp32"))
        self._seconds, self.batches = seconds, list[int]()
        self.name, self.device, self.precision, self.chosen = "onnx", device, "fp32", "chosen."
        self.engine_hash = ""

    def infer(self, scans: Array) -> RuntimeOutputs:
        self.batches.append(len(scans))
        outputs = self._exact.infer(scans)
        time.sleep(self._seconds.get(len(scans), 0.0))
        return outputs


def read(seconds: float, refused: bool = False) -> Any:
    def one(patient: Patient) -> Read:
        return Read(patient, None if refused else object(), "", (), seconds)  # type: ignore[arg-type]

    return one


@pytest.fixture
def reads() -> Iterator[Any]:
    begun = []

    def begin(seconds: float, workers: int = 4, refused: bool = False) -> Ahead[Patient, Read]:
        ahead = Ahead(read(seconds, refused), PATIENTS, workers)
        begun.append(ahead)
        ahead.__enter__()
        while len(ahead.finished()) < min(workers, len(PATIENTS)):
            time.sleep(0.001)
        return ahead

    yield begin
    for ahead in begun:
        ahead.__exit__()


def test_on_a_cpu_as_many_readers_as_keep_up(model: Model, reads: Any) -> None:
    runtime = Halving(Timed(model, "cpu", {1: 0.1}))
    for seconds, workers in ((0.01, 1), (0.15, 2), (60.0, 4)):
        ahead = reads(seconds)
        found = find_pace(model, runtime, PredictSettings(), ahead, 6)
        assert (found.batch_size, found.workers, ahead.workers) == (1, workers, workers)
        assert f"{1000 * seconds:.0f} ms to read a patient" in found.measured


def test_what_the_user_says_is_not_chosen(model: Model, reads: Any) -> None:
    slow = Timed(model, "cuda:0", {1: 0.0, 2: 0.5})
    settings = PredictSettings(batch_size=2, workers=3)
    assert find_pace(model, Halving(slow), settings, reads(0.1, 3), 100) == (2, 3, "")
    assert slow.batches == [2]
    on_cpu = Halving(Timed(model, "cpu", {}))
    assert find_pace(model, on_cpu, PredictSettings(workers=3), reads(0.0, 3), 6).workers == 3
    with pytest.raises(SettingsError, match="takes batches up to"):
        find_pace(model, on_cpu, PredictSettings(batch_size=1000), reads(0.1), 6)


def test_nothing_is_known_of_reading_when_all_are_refused(model: Model, reads: Any) -> None:
    runtime = Halving(Timed(model, "cpu", {1: 0.2}))
    assert find_pace(model, runtime, PredictSettings(), reads(0.0, refused=True), 6) == (1, 4, "")


@pytest.mark.parametrize(("alone", "together", "wanted"), [(0.05, 0.06, True), (0.01, 0.2, False)])
def test_on_a_gpu_the_faster_batch(model: Model, reads: Any, alone: float, together: float, wanted: bool) -> None:
    most = model.manifest.max_batch
    timed = Timed(model, "cuda:0", {1: alone, most: together})
    found = find_pace(model, Halving(timed), PredictSettings(), reads(0.1), pace.WORTH * most)
    assert found.batch_size == (most if wanted else 1)
    assert f"in batches of {most}" in found.measured
    assert found.workers == 4


def test_a_small_cohort_is_not_worth_the_measurement(model: Model, reads: Any) -> None:
    timed = Timed(model, "cuda:0", {})
    most = model.manifest.max_batch
    assert find_pace(model, Halving(timed), PredictSettings(), reads(0.1), pace.WORTH * most - 1) == (most, 4, "")
    assert timed.batches == [most]


def test_finished_results_are_not_taken() -> None:
    with Ahead(lambda n: n * n, range(5), 2) as ahead:
        while len(ahead.finished()) < 2:
            time.sleep(0.001)
        assert ahead.finished() == [0, 1]
        assert [ahead.take() for _ in range(6)] == [0, 1, 4, 9, 16, None]


def test_finished_ends_at_an_error() -> None:
    def work(n: int) -> int:
        return 1 // n

    with Ahead(work, [1, 0, 1], 3) as ahead:
        assert ahead.take() == 1
        time.sleep(0.05)
        assert ahead.finished() == []
        with pytest.raises(ZeroDivisionError):
            ahead.take()
