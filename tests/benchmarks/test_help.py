"""Every benchmark says how it is called."""

import contextlib
import importlib
import io
import sys
from pathlib import Path

import pytest

from tests.forked import Forked

ROOT = Path(__file__).parents[2]
NAMES = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py") if file.stem not in ("__init__", "common"))


def ask() -> None:
    """Each benchmark for its help, in one process of their own: some change what every later one would find."""
    for name in sys.argv[1:]:
        sys.argv = [name, "--help"]
        text = io.StringIO()
        try:
            with contextlib.redirect_stdout(text):
                importlib.import_module(f"benchmarks.{name}").main()
            print(name, "did not stop at its help")
        except SystemExit as stop:
            print(name, stop.code, "usage:" in text.getvalue(), "--out" in text.getvalue())


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    process = Forked(NAMES, cwd=ROOT, program=ask)
    out, err = process.communicate(300)
    assert process.returncode == 0, err
    return dict(line.split(" ", 1) for line in out.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str, answers: dict[str, str]) -> None:
    assert answers[name] == "0 True True"
