"""Image statistics in words."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from toolkit.data.patients import find_patients
from toolkit.data.phantom.cohort import PhantomSettings, write_cohort
from toolkit.data.reading.door import open_patient
from toolkit.data.statistics import image_statistics
from toolkit.data.wording import likely_cause, out_of_range, wording


def test_every_statistic_has_a_name(tmp_path: Path) -> None:
    write_cohort(tmp_path, PhantomSettings(1, 0, 0.5, spacing=4.0), lambda _: None)
    names = image_statistics(open_patient(find_patients([tmp_path])[0]))
    assert len(names) == 30
    for name in names:
        words = wording(name)
        assert words.name != name.replace("_", " ")
        assert words.low and words.high
    assert len({wording(name).name for name in names}) == 30


@pytest.mark.parametrize(
    ("name", "value", "sentence", "cause"),
    [
        (
            "flair_rim",
            0.21,
            "FLAIR: signal at the brain's edge is much lower than in training"
            " (0.21, usual 0.82 to 1.04 times the median)",
            "different skull-stripping?",
        ),
        (
            "t1ce_rim",
            1.05,
            "T1 with contrast: signal at the brain's edge is higher than in training"
            " (1.05, usual 0.82 to 1.04 times the median)",
            "scalp or skull not removed?",
        ),
        ("volume", math.nan, "Brain volume cannot be measured (nan, usual 0.82 to 1.04 ml)", "skull not removed?"),
        ("new_one", 2, "new one is much higher than in training (2, usual 0.82 to 1.04)", ""),
    ],
)
def test_sentences(name: str, value: float, sentence: str, cause: str) -> None:
    assert out_of_range(name, value, 0.82, 1.04) == sentence
    assert likely_cause(name, value, 0.82) == cause
