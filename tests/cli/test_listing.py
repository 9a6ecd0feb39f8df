"""`grade --help` shows every command and loads none of them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.listing import COMMANDS, loaded
from cli.main import app

ROOT = Path(__file__).parents[2]


def test_every_module_of_a_command_is_listed() -> None:
    assert set(COMMANDS) == {path.stem for path in (ROOT / "cli" / "commands").glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_listed_is_how_the_help_begins(name: str) -> None:
    assert inspect.cleandoc(loaded(name).help).split("\n\n")[0] == COMMANDS[name].help


def test_help_loads_no_command_and_neither_markdown_nor_tracebacks() -> None:
    code = (
        "import sys\nfrom cli.main import run\nsys.argv = ['grade', *sys.argv[1:]]\n"
        "try: run()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    names = done.stderr.split()
    assert "commission" in done.stdout
    assert "typer.rich_utils" in names
    assert not [name for name in names if name.startswith("cli.commands.")]
    assert not {"rich.markdown", "rich.traceback", "markdown_it", "pygments", "attr", "numpy", "pydantic"} & set(names)


def test_a_traceback_is_still_rich_after_help() -> None:
    """Without the values of variables, as ever."""
    code = (
        "import sys\nfrom cli.listing import load_help\nload_help()\n"
        "from cli.main import app\nfrom cli.commands import info\n"
        "def broken():\n    secret = 'Doe' + '_Jane'\n    raise ValueError('broken here')\n"
        "info.command = broken\napp(['info'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "ValueError: broken here" in done.stderr
    assert "Traceback (most recent call last) \u2500" in done.stderr
    assert "Doe_Jane" not in done.stderr


def test_a_word_that_is_no_command_names_the_nearest() -> None:
    done = CliRunner().invoke(app, ["trian"])
    assert done.exit_code == 2
    assert "Did you mean 'train'?" in done.output
