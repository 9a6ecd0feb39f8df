"""The house rules that a machine can check: sizes, rooms, and the tree in `docs/design.md` against the files."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("toolkit", "deploy", "cli")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
LINES, FUNCTION, PARAMETERS, MODULES = 300, 60, 5, 20


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_file_is_too_long() -> None:
    lengths = {relative(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > LINES} == {}


def test_no_function_is_too_long() -> None:
    """Docstring and code; the options of a command are its signature."""
    lengths = {
        f"{relative(file)}:{node.name}": (node.end_lineno or node.lineno) - node.body[0].lineno + 1
        for file in FILES
        for node in functions(file)
    }
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION} == {}


def test_no_function_takes_too_many_parameters() -> None:
    """Commands are left out: their parameters are the options of the command line."""
    found = {}
    for file in FILES:
        if file.is_relative_to(ROOT / "cli" / "commands") or file.name == "main.py":
            continue
        for node in functions(file):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > PARAMETERS:
                found[f"{relative(file)}:{node.name}"] = count
    assert found == {}


def test_no_room_holds_too_many_modules() -> None:
    rooms = Counter(relative(file.parent) for file in FILES if file.name != "__init__.py")
    assert {room: count for room, count in rooms.items() if count > MODULES and room != "cli/commands"} == {}


def drawn() -> set[str]:
    """Paths in the tree of `docs/design.md`: a room is a word that ends in a slash, deeper lines are inside it."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    block = re.search(r"## The house\n.*?```\n(.*?)```", text, re.DOTALL)
    assert block, "docs/design.md has no tree under 'The house'"
    paths, rooms = set(), []  # (indent, path)
    for line in block[1].splitlines():
        indent = len(line) - len(line.lstrip())
        while rooms and rooms[-1][0] >= indent:
            rooms.pop()
        words = line.split()
        if not words:
            continue
        above = rooms[-1][1] if rooms else ""
        if words[0].endswith("/"):
            rooms.append((indent, above + words[0]))
        elif words[0].endswith(".py"):
            paths.add(above + words[0])
    return paths


def test_the_tree_in_the_design_is_the_tree_on_disk() -> None:
    files = {relative(file) for file in FILES if file.name not in ("__init__.py", "__main__.py")}
    assert sorted(drawn() - files) == [], "drawn, but not there"
    assert sorted(files - drawn()) == [], "there, but not drawn"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_is_a_package(package: str) -> None:
    rooms = {file.parent for file in (ROOT / package).rglob("*.py")}
    assert [relative(room) for room in sorted(rooms) if not (room / "__init__.py").is_file()] == []
