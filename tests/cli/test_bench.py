import json

import pytest

import deploy.bench
import deploy.runtimes.open


@pytest.mark.slow
@pytest.mark.usefixtures("without_cuda")
def test_a_table_and_json(project, grade, monkeypatch, tmp_path):
    monkeypatch.setattr(deploy.runtimes.open, "user_cache", lambda kind: tmp_path / kind)
    monkeypatch.setattr(deploy.bench, "SECONDS", 0.01)
    assert grade("train", "--name", "a", "--set", "training.epochs=1")[0] == 0
    assert grade("export")[0] == 0
    code, out, err = grade("bench", "--batch-size", "2")
    assert code == 0, err
    assert "onnx fp32 cpu" in out
    assert "name a patient folder" in out
    assert "Fastest that answers right: onnx" in " ".join(err.split())
    code, out, _ = grade("bench", "cohort/LGG/p00", "--json")
    assert code == 0
    found = json.loads(out)
    assert [speed["batch"] for speed in found["measured"][0]["speeds"]] == [1, 8]
    assert found["stages"]["read"] > 0
    code, _, err = grade("bench", "--runtime", "onnx", "--device", "cuda")
    assert code == 1
    assert "built without CUDA" in " ".join(err.split())
