"""What is measured, what is kept, and what `auto` makes of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import deploy.bench
import deploy.runtimes.open
from deploy.bench import Measured, Speed, bench, candidates, fastest
from deploy.model.folder import Model
from deploy.runtime import Choice, Runtime, RuntimeOutputs
from deploy.runtimes.open import open_runtime
from tests.deploy.conftest import ignore
from toolkit.data.patients import Patient
from toolkit.errors import ModelError, RuntimeUnavailable

ON_CPU = Choice("onnx", "cpu", "fp32")


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> None:
    """Not here: the self-test's scan is where this network is unsure."""


@pytest.fixture(scope="module")
def exported(wide: Path) -> Path:
    return wide


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results go here, and measuring is short."""
    monkeypatch.setattr(deploy.runtimes.open, "user_cache", lambda kind: tmp_path / kind)
    monkeypatch.setattr(deploy.bench, "SECONDS", 0.01)
    return tmp_path / "bench"


class Slow:
    """Answers rightly, or not, after so many seconds."""

    def __init__(self, inner: Runtime, seconds: float, shift: float = 0.0) -> None:
        self.inner, self.seconds, self.shift = inner, seconds, shift
        self.name, self.device, self.precision, self.chosen = "tensorrt", "cuda:0", "fp16", "Slow."
        self.batches: list[int] = []

    def infer(self, scans: np.ndarray) -> RuntimeOutputs:
        self.batches.append(len(scans))
        time.sleep(self.seconds if len(self.batches) > 1 else 10 * self.seconds)
        outputs = self.inner.infer(scans)
        return outputs._replace(logits=outputs.logits + np.float32([0, self.shift]))


def offer(monkeypatch: pytest.MonkeyPatch, slow: Slow) -> None:
    def opener(model: Model, choice: Choice) -> Runtime:
        return slow if choice.name == "tensorrt" else open_runtime(model, choice)

    monkeypatch.setattr(deploy.bench, "open_runtime", opener)


def test_the_cpu_is_measured(model: Model, patients: tuple[Patient, ...], kept: Path) -> None:
    stages: list[str] = []
    found = bench(model, candidates("cpu"), (3, 1), patients[0], stages.append)
    (measured,) = found.measured
    assert (measured.runtime, measured.device, measured.precision, measured.parity) == ("onnx", "cpu", "fp32", "passed")
    assert [speed.batch for speed in measured.speeds] == [1, 3]
    for speed in measured.speeds:
        assert speed.runs >= 3
        assert 0 < speed.median <= speed.p95
        assert speed.patients_per_second == pytest.approx(1000 * speed.batch / speed.median)
    assert found.stages.read > 0
    assert found.stages.preprocess > 0
    assert found.stages.copying > 0
    assert found.stages.decide > 0
    assert found.fastest == "onnx"
    assert json.loads((kept / f"{model.fingerprint}.json").read_text()) == found.model_dump(mode="json")
    assert "onnx fp32 cpu: batches of 3" in stages


def test_warm_up_is_apart(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(open_runtime(model, ON_CPU), 0.03)
    offer(monkeypatch, slow)
    (speed,) = bench(model, [Choice("tensorrt")], [2], None, ignore).measured[0].speeds
    assert speed.first >= 300  # ms; the first run takes 0.3 s
    assert 30 <= speed.median < 300
    assert speed.patients_per_second == pytest.approx(2000 / speed.median)
    assert slow.batches[:4] == [2, 2, 2, 2]


def test_who_answers_wrongly_is_not_the_fastest(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(open_runtime(model, ON_CPU), 0.0, shift=1.0)
    offer(monkeypatch, slow)
    found = bench(model, [ON_CPU, Choice("tensorrt")], [1], None, ignore)
    assert found.measured[0].parity == "passed"
    assert "self-test failed" in found.measured[1].parity
    assert found.fastest == "onnx"
    assert found.stages.read is found.stages.preprocess is None


def measured(runtime: str, parity: str, *rates: float) -> Measured:
    speeds = tuple(
        Speed(batch=1, first=1, median=1000 / rate, p95=1000 / rate, runs=3, patients_per_second=rate) for rate in rates
    )
    return Measured(runtime=runtime, device="cuda:0", precision="fp16", open_seconds=1, parity=parity, speeds=speeds)


def test_the_fastest_is_the_one_with_the_best_batch() -> None:
    onnx, tensorrt = measured("onnx", "passed", 300, 900), measured("tensorrt", "passed", 500, 800)
    assert fastest([onnx, tensorrt]) == "onnx"
    assert fastest([onnx, measured("tensorrt", "passed", 100, 901)]) == "tensorrt"
    assert fastest([onnx, measured("tensorrt", "it differs", 9000)]) == "onnx"
    assert fastest([onnx, measured("torch", "passed", 9000)]) == "onnx"  # `auto` never loads torch
    assert fastest([measured("onnx", "it differs", 1)]) is None


@pytest.mark.usefixtures("without_cuda")
def test_what_cannot_be_opened_is_listed(model: Model) -> None:
    found = bench(model, [ON_CPU, Choice("onnx", "cuda", "fp16")], [1], None, ignore)
    assert list(found.missing) == ["onnx fp16 cuda"]
    assert "built without CUDA" in found.missing["onnx fp16 cuda"]
    with pytest.raises(RuntimeUnavailable, match="built without CUDA"):
        bench(model, [Choice("onnx", "cuda", "fp16")], [1], None, ignore)
    with pytest.raises(ModelError, match=r"batches of 4 were asked for; the model takes 1 to 3"):
        bench(model, [ON_CPU], [4], None, ignore)


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_auto_takes_what_was_the_fastest(model: Model, kept: Path) -> None:
    assert open_runtime(model, Choice()).name == "onnx"
    kept.mkdir()
    file = kept / f"{model.fingerprint}.json"
    for content in ("", "[]", '{"fastest": "evil"}', '{"fastest": null}'):
        file.write_text(content)
        assert open_runtime(model, Choice()).chosen.endswith("built without CUDA.")
    file.write_text('{"fastest": "tensorrt"}')
    runtime = open_runtime(model, Choice())  # no GPU any more: not in silence
    assert runtime.name == "onnx"
    assert "; TensorRT was the fastest by grade bench, but TensorRT was asked for on device auto" in runtime.chosen
    assert "bench" not in open_runtime(model, Choice(device="cpu")).chosen
