"""Every benchmark says how it is called."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py") if file.stem not in ("__init__", "common"))
# One process asks them all: most of the time goes into importing torch.
PROGRAM = """
import contextlib, importlib, io, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            importlib.import_module(f"benchmarks.{name}").main()
        print(name, "did not stop at its help")
    except SystemExit as stop:
        print(name, stop.code, "usage:" in text.getvalue(), "--out" in text.getvalue())
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    command = [sys.executable, "-c", PROGRAM, *NAMES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=300)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str, answers: dict[str, str]) -> None:
    assert answers[name] == "0 True True"
