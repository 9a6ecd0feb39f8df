"""The gate and the self-test, with runtimes whose answers are known."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp
from pathlib import Path

import numpy as np
import pytest

from deploy.extremes import extreme_scans
from deploy.lanes import Lanes
from deploy.model.folder import Model, Precision
from deploy.parity import Gate, ask_extremes, check_parity, choose_patients
from deploy.runtime import Array, Choice, RuntimeOutputs
from deploy.runtimes.open import open_runtime
from deploy.selftest import run_selftest
from tests.deploy.conftest import SETTINGS
from toolkit.data.patients import Cohort, Patient
from toolkit.errors import ModelError


@dataclass
class Made:
    """Answers each scan by its mean, plus an error that the test chooses."""

    error: Callable[[Array], float]
    precision: Precision = "fp32"
    name: str = "made"
    device: str = "cpu"
    chosen: str = ""

    def infer(self, scans: Array) -> RuntimeOutputs:
        hgg = np.array([scan.mean() + self.error(scan) for scan in scans], np.float32)
        logits = np.stack([np.zeros_like(hgg), hgg], axis=1)
        return RuntimeOutputs(
            logits, np.ones((len(scans), 512), np.float32), np.ones((len(scans), 1, 1, 1), np.float32)
        )


@dataclass
class Counted(Made):
    """Remembers the sizes of its batches."""

    seen: set[int] = field(default_factory=set)

    def infer(self, scans: Array) -> RuntimeOutputs:
        self.seen.add(len(scans))
        return super().infer(scans)


def exact(_: Array) -> float:
    return 0.0


@pytest.fixture
def plain(model: Model) -> Model:
    """P(HGG) = sigmoid(HGG logit), threshold 1/2."""
    calibration = model.manifest.calibration.model_copy(update={"a": 1.0, "b": 0.0})
    return Model(model.folder, model.manifest.model_copy(update={"calibration": calibration}), model.fingerprint)


def patient(value: float) -> tuple[str, Array]:
    return f"P{value}", np.full((4, *SETTINGS.data.shape), value, np.float32)


def is_patient(scan: Array) -> bool:
    return bool(scan.flat[0] == scan.flat[-1]) and scan.flat[0] not in (0, 1)


def test_differences_and_flips_are_counted(plain: Model) -> None:
    def error(scan: Array) -> float:
        return 0.004 if is_patient(scan) else 0.0

    report = check_parity(plain, Made(exact), [Made(error, "fp16")], [patient(-0.001), patient(2.0)], 9)
    (found,) = report.comparisons
    assert (report.patients, report.validation, report.batches, found.flips) == (2, 9, (1, 2, 3), 1)
    wanted = 1 / (1 + exp(-0.003)) - 1 / (1 + exp(0.001))  # the largest slope of the sigmoid is at 0
    assert found.difference == pytest.approx(wanted, abs=1e-6)
    assert found.logit_difference == pytest.approx(0.004, abs=1e-6)
    assert found.extremes_difference == 0


@pytest.mark.parametrize(("precision", "error", "passes"), [
    ("fp32", 3.9e-4, True), ("fp32", 4.1e-4, False), ("fp16", 0.0199, True), ("fp16", 0.0201, False),
])  # fmt: skip
def test_the_limit_is_a_quarter_of_the_logit_at_one_half(
    plain: Model, precision: Precision, error: float, passes: bool
) -> None:
    def judge() -> None:
        check_parity(
            plain,
            Made(exact),
            [Made(lambda scan: error if is_patient(scan) else 0.0, precision)],
            [patient(-error / 2)],
            1,
        )

    if passes:
        judge()
    else:
        with pytest.raises(ModelError, match=rf"made {precision} cpu: patient .* in probability, more than"):
            judge()


def test_fp16_may_overflow_on_an_extreme_scan_but_not_on_a_patient(plain: Model) -> None:
    def overflow(scan: Array) -> float:
        return np.inf if abs(scan).max() > 100 else 0.0

    report = check_parity(plain, Made(exact), [Made(overflow, "fp16")], [patient(0.5)], 1)
    assert report.comparisons[0].overflows == ("the scan 'noise to +-1000'", "the scan 'one voxel of 1000'")
    with pytest.raises(ModelError, match=r"noise to .*not finite"):
        check_parity(plain, Made(exact), [Made(overflow, "fp32")], [patient(0.5)], 1)
    with pytest.raises(ModelError, match=r"patient P200\.0 gives values that are not finite"):
        check_parity(plain, Made(exact), [Made(overflow, "fp16")], [patient(200.0)], 1)


def test_an_answer_that_depends_on_the_batch_fails(plain: Model) -> None:
    class Leaky(Made):
        def infer(self, scans: Array) -> RuntimeOutputs:
            outputs = super().infer(scans)
            return outputs._replace(logits=outputs.logits + np.float32([0, 0.1 * (len(scans) == 3)]))

    with pytest.raises(ModelError, match=r"a batch of 3 differs by 0\.02"):
        check_parity(plain, Made(exact), [Leaky(exact)], [patient(0.5)], 1)


def test_an_extreme_neighbour_that_reaches_a_patient_fails(plain: Model) -> None:
    class Infected(Made):
        def infer(self, scans: Array) -> RuntimeOutputs:
            outputs = super().infer(scans)
            reached = len(scans) > 1 and np.abs(scans).max() > 100
            return outputs._replace(logits=outputs.logits + np.float32(np.nan if reached else 0))

    with pytest.raises(ModelError, match=r"a batch of \d gives values that are not finite"):
        check_parity(plain, Made(exact), [Infected(exact, "fp16")], [patient(0.5)], 1)


@pytest.mark.parametrize(("most", "sizes"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 3, 4))])
def test_no_batch_is_larger_than_the_model_takes(plain: Model, most: int, sizes: tuple[int, ...]) -> None:
    counted = Counted(exact)
    limited = Model(plain.folder, plain.manifest.model_copy(update={"max_batch": most}), plain.fingerprint)
    report = check_parity(limited, Made(exact), [counted], [patient(0.5), patient(0.25), patient(0.75)], 3)
    assert report.batches == tuple(sorted(counted.seen)) == sizes


@pytest.mark.parametrize("most", [1, 3, 8])
def test_a_gpu_is_given_single_scans_and_the_largest_batch_alone(plain: Model, most: int) -> None:
    card = Counted(exact, device="cuda:0")
    limited = Model(plain.folder, plain.manifest.model_copy(update={"max_batch": most}), plain.fingerprint)
    report = check_parity(limited, Made(exact), [card], [patient(0.5), patient(0.25)], 2)
    assert set(report.batches) == card.seen == {1, most}
    assert report.extremes == tuple(name for name, _ in extreme_scans(SETTINGS.data.grid))


def test_every_extreme_scan_is_judged_on_a_gpu(plain: Model) -> None:
    for name, extreme in extreme_scans(SETTINGS.data.grid):

        def off(scan: Array, extreme: Array = extreme) -> float:
            return 10.0 if np.array_equal(scan, extreme) else 0.0

        with pytest.raises(ModelError, match=f"the scan '{re.escape(name)}' differs"):
            check_parity(plain, Made(exact), [Made(off, device="cuda:0")], [patient(0.5)], 1)


def test_no_patient_and_a_broken_reference_fail(plain: Model) -> None:
    with pytest.raises(ModelError, match="at least one validation patient"):
        check_parity(plain, Made(exact), [Made(exact)], [], 0)
    with pytest.raises(ModelError, match="trained network's own answer to P1"):
        check_parity(plain, Made(lambda _: np.nan), [Made(exact)], [patient(1.5)], 1)


def test_patients_are_taken_evenly_by_grade() -> None:
    grades = (0,) * 10 + (1,) * 90
    cohort = Cohort(tuple(Patient(str(k), Path(str(k))) for k in range(100)), grades)
    chosen = choose_patients(cohort, 8)
    assert [patient.id for patient in chosen.patients] == ["0", "3", "6", "9", "10", "40", "69", "99"]
    assert choose_patients(cohort, 64).grades == (0,) * 10 + (1,) * 54
    assert len(choose_patients(cohort, 200)) == 100
    assert choose_patients(cohort.select(range(10, 30)), 8).grades == (1,) * 8


def test_two_lanes_come_to_what_one_does(plain: Model) -> None:
    """Patients are asked about before others are judged."""
    candidates = [Made(lambda _: 1e-5, "fp32"), Made(lambda _: 1e-3, "fp16")]
    scans = [patient(value) for value in (-0.5, 0.25, 3.0)]
    wanted = check_parity(plain, Made(exact), candidates, scans, 3)
    with Lanes(2) as lanes:
        reference = Made(exact)
        extremes = ask_extremes(plain.manifest.grid, reference, lanes)
        gate = Gate(plain, reference, candidates, lanes, extremes)
        for name, asked in [(name, gate.ask(scan)) for name, scan in scans]:
            gate.patient(name, asked)
        assert gate.report(3) == wanted


@pytest.mark.parametrize("choice", [Choice("onnx", "cpu"), Choice("onnx", "cpu", "fp16"), Choice("torch", "cpu")])
def test_the_selftest_passes_on_every_runtime(model: Model, choice: Choice) -> None:
    run_selftest(model, open_runtime(model, choice), batch=2)


@pytest.mark.parametrize("shift", [0.05, np.nan])
def test_the_selftest_finds_a_wrong_answer(model: Model, shift: float) -> None:
    class Shifted(Made):
        def infer(self, scans: Array) -> RuntimeOutputs:
            outputs = open_runtime(model, Choice("onnx", "cpu")).infer(scans)
            wrong = outputs.logits.copy()
            wrong[-1, 1] += shift  # in the last of the batch only
            return outputs._replace(logits=wrong)

    with pytest.raises(ModelError, match="self-test failed: made fp32 cpu"):
        run_selftest(model, Shifted(exact), batch=2)
