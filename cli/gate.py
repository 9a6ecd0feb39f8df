"""`grade --no-phi`: the command runs in its own process, and what it prints passes through here, word by word.

Nothing is hidden because it is known to be a name. A word is shown because it is one of ours: it stands in a text of
this program, in a message of the operating system or of the command line's library, or it is a short number. Whatever
else a process prints (a traceback, a library's warning, a message in C, a child's last words) becomes `<hidden 1>`, the
same number for the same word.
"""

from __future__ import annotations

import ast
import builtins
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import IO

from toolkit.environment import loading

BEHIND = "GRADE_BEHIND_THE_GATE"  # set for the inner process and those that it starts: they print into the gate
FLAG = "--no-phi"
HERE = Path(__file__).resolve().parents[1]
# An escaped quote belongs to its word, so that JSON stays JSON.
_CHUNK = re.compile(r"""(?:\\.|[^\s"'`()\[\]{},;:|<>\\]|\\$)+""")
_END = ".!?…"
_NUMBER = re.compile(r"[+-]?\d{1,4}(\.\d{1,20})?(e[+-]?\d{1,3})?%?", re.IGNORECASE)
_COUNTS = re.compile(r"\d{1,4}(/\d{1,4}|(x\d{1,4}){1,2})")
_SIGNS = re.compile(r"[!-/:-@\[-`{-~\u2500-\u257f–—±×·…→]*")  # punctuation and what tables are drawn with
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}")  # of a file; of a study, as the service calls it
_MESSAGES = """
Usage OPTIONS COMMAND ARGS Options Commands Arguments Try grade help for Error Invalid value Missing argument option
parameter No such command Did you mean is not one of a valid integer float boolean in the range or requires an Got
unexpected extra arguments does not exist File Directory Path Traceback most recent call last File line in raise return
Aborted Warning UserWarning RuntimeWarning int path text TEXT INTEGER PATH hidden true false null
"""


def wanted(words: Sequence[str]) -> bool:
    """Whether a command line asks for the gate and this process does not print into one already."""
    ours = words[: words.index("--")] if "--" in words else words
    return FLAG in ours and BEHIND not in os.environ


def run_behind(words: Sequence[str]) -> int:
    """Run a command line in another process and show what is public of all that it prints.

    Args:
        words: of the command line, without the program.

    Returns:
        Its exit code; 128 and the signal's number where a signal ended it.
    """
    inner = [FLAG, *(word for word in words if word != FLAG)]
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    width = str(shutil.get_terminal_size().columns)
    ours = {BEHIND: "1", "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", "COLUMNS": width, "NO_COLOR": "1"}
    # In a session of its own it does not see a Ctrl-C of the terminal, which is passed on once.
    process = subprocess.Popen(  # noqa: S603  # this very program
        program(inner), env=kept | ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    with _forwarded(process), process:
        vocabulary()  # once, before there are threads: two that parse at the same time break Python 3.11's parser
        pumps = [
            threading.Thread(target=_pump, args=streams)
            for streams in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
        ]
        for pump in pumps:
            pump.start()
        code = process.wait()
        for pump in pumps:
            pump.join()
    return code if code >= 0 else 128 - code


def program(words: Sequence[str]) -> list[str]:
    """The words that start this program again, without the working folder among the places that Python imports from."""
    code = f"import sys; sys.path.append({str(HERE)!r}); from cli.main import run; run()"
    return [sys.executable, "-P", "-c", code, *words]


def public(text: str) -> str:
    """A text with every word hidden that is not known to be public."""
    return _CHUNK.sub(lambda found: found[0] if _is_public(found[0]) else _pseudonym(found[0]), text)


def _pump(source: IO[bytes], target: IO[str]) -> None:
    for line in source:
        try:
            target.write(public(line.decode("utf-8", "replace")))
            target.flush()
        except OSError:  # no one reads any more; the command's own work continues
            continue


@contextmanager
def _forwarded(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """SIGINT and SIGTERM go to the process that works."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        if process.poll() is None:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_public(chunk: str) -> bool:
    word = chunk.rstrip(_END)
    if _SIGNS.fullmatch(word) or word in vocabulary():
        return True
    if _NUMBER.fullmatch(word) or _COUNTS.fullmatch(word) or _DIGEST.fullmatch(word):
        return True
    key, equals, value = word.partition("=")
    if equals:
        return _is_public(key) and _is_public(value)
    parts = re.split(r"[./-]", word)
    return len(parts) > 1 and all(part.islower() and part in vocabulary() for part in parts)


_numbers: dict[str, int] = {}


def _pseudonym(chunk: str) -> str:
    word = chunk.rstrip(_END)
    number = _numbers.setdefault(word, len(_numbers) + 1)
    return f"<hidden {number}>{chunk[len(word) :]}"


@cache
def vocabulary() -> frozenset[str]:
    """The words of this program's own texts, of its settings and options, and of the operating system's errors."""
    errors = [
        name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)
    ]
    texts = [_MESSAGES, *errors, *(os.strerror(number) for number in errno.errorcode)]
    with loading():
        for package in ("cli", "deploy", "toolkit"):
            for file in sorted((HERE / package).rglob("*.py")):
                texts.append(str(file.relative_to(HERE)))
                texts += _texts(ast.parse(file.read_bytes()), "commands" in file.parts)
    return frozenset(chunk.rstrip(_END) for text in texts for chunk in _CHUNK.findall(text))


def _texts(tree: ast.Module, command: bool) -> Iterator[str]:
    """Literals of a module apart from its docstrings (a command's is its help), names of settings, options, errors."""
    left: list[ast.AST] = [tree]
    while left:  # by hand: `ast.walk` takes twice as long
        node = left.pop()
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                yield node.value
            continue
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Refused", "Unavailable")):
            yield node.name
        elif command and isinstance(node, ast.arg):
            yield f"--{node.arg.replace('_', '-')} {node.arg} {node.arg.upper()}"
        prose = None if command and isinstance(node, ast.FunctionDef) else _docstring(node)
        for name in node._fields:
            value = getattr(node, name)
            if isinstance(value, list):
                left += [one for one in value if one is not prose and isinstance(one, ast.AST)]
            elif isinstance(value, ast.AST) and name != "ctx":
                left.append(value)


def _docstring(node: ast.AST) -> ast.AST | None:
    first = node.body[0] if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body else None
    return first if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else None
