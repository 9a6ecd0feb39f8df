"""A sample of `python -m tests.campaign runs`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_altered_runs_and_kills() -> None:
    code = "import sys; from tests.campaign.runs import main; sys.exit(main(few=True))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 altered run folders and 2 kills of grade train: 0 wrong" in done.stdout
