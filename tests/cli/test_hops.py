"""How far it is from the command to the answer."""

import traceback
from pathlib import Path

import onnxruntime
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_predict_reaches_the_network_in_seven_hops(made, grade, tmp_path, monkeypatch):
    ask, stacks = onnxruntime.InferenceSession.run, []

    def noted(self, *words, **more):
        frames = traceback.extract_stack()
        ours = [f for f in frames if Path(f.filename).is_relative_to(ROOT) and "tests" not in Path(f.filename).parts]
        stacks.append([frame.name for frame in ours if ".venv" not in frame.filename])
        return ask(self, *words, **more)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", noted)
    patient = next((made / "cohort" / "HGG").iterdir())
    code, _, err = grade("predict", patient, "--model", made / "model", "--out", tmp_path / "out", "--device", "cpu")
    assert code == 0, err
    last = stacks[-1]
    assert last[-3:] == ["run", "infer", "infer"]
    assert last[last.index("command") :] == ["command", "graded", "predict", "_next_batch", "run", "infer", "infer"]
    assert len(last) == 8  # the console function and seven more
