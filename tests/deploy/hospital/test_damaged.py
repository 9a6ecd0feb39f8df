"""A sample of the campaign `python -m tests.campaign studies`."""

from __future__ import annotations

from tests.campaign.studies import run


def test_damaged_studies_are_read_right_or_refused() -> None:
    ends, bad = run(range(12))
    assert not bad
    assert ends["read"]
    assert ends["refused"]
