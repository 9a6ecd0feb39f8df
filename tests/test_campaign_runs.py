"""A sample of `python -m tests.campaign runs`."""

from __future__ import annotations

import sys

from tests.campaign.runs import main
from tests.forked import Forked


def test_altered_runs_and_kills() -> None:
    process = Forked((), program=lambda: sys.exit(main(few=True)))
    out, err = process.communicate(900)
    assert process.returncode == 0, out + err
    assert "3 altered run folders and 2 kills of grade train: 0 wrong" in out
