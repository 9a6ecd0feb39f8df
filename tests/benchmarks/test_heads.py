"""What networks say of heads, worked out by hand; heads that are kept are not made again."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.heads import COLUMNS, Answered, compared
from tests.campaign.registration import FOUND, Way, look_at
from toolkit.evaluation.calibration import Calibration


def test_a_way_is_compared_with_the_head_as_drawn() -> None:
    calibration = Calibration(method="none", a=1, b=0, threshold=0.5, rule="youden", cases={"LGG": 1, "HGG": 2})
    logits = {"direct": np.array([-1.0, 1.0, 2.0]), "ingested": np.array([1.0, 1.0, 0.0])}
    row = compared("run", "ingested", [Answered(logits, calibration)], np.array([0, 1, 1]))
    found = dict(zip(COLUMNS, row, strict=True))
    assert found["heads"] == 3
    assert found["d logit"] == 0  # of 2, 0 and -2
    assert found["sd"] == pytest.approx(np.sqrt(8 / 3))
    assert found["median |dP|"] == pytest.approx(0.8808 - 0.5, abs=1e-4)  # of 0.462, 0 and 0.381
    assert found["within 0.05"] == pytest.approx(1 / 3)
    assert found["flips"] == 1  # the first; the third is at the threshold
    assert found["AUC"] == 0.25  # level with one HGG, above the other
    twice = compared("runs", "ingested", [Answered(logits, calibration)] * 2, np.array([0, 1, 1]))
    assert (twice[2], twice[COLUMNS.index("flips")]) == (6, 2)


def test_a_head_that_is_kept_is_not_made_again(tmp_path: Path) -> None:
    kept = {"grade": 1, "off": {"t1": 0.1}, "noted": {"t1": False}, "degrees": 1.0, "dice": 0.98, "seconds": {}}
    for number, content in enumerate((kept, {"refused": "the brain mask holds 300 ml"})):
        (tmp_path / f"{number:03}").mkdir()
        (tmp_path / f"{number:03}" / FOUND).write_text(json.dumps(content))
    found, said = look_at(Way(keep=tmp_path), 0)
    assert found is not None
    assert found._asdict() == kept
    assert said.startswith("kept")
    refused, said = look_at(Way(keep=tmp_path), 1)
    assert refused is None
    assert "300 ml" in said
    assert look_at(Way(keep=tmp_path, until=0), 2) == (None, "")  # not begun: the time is over
    assert not (tmp_path / "002").exists()
