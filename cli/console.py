"""The one place that prints: results on standard output, progress and notes on standard error, a log on request."""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toolkit.errors import INTERRUPTED, GradeError

if TYPE_CHECKING:
    from rich.progress import Progress

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
hidden: dict[str, str] = {}  # what is not to be printed -> what is printed instead; see `cli.privacy`
_PLAIN = str.maketrans({"–": "-", "—": "-", "±": "+-", "×": "x", "…": "...", "→": "->", "’": "'", "≥": ">=", "≤": "<="})


@dataclass
class Volume:
    """How much is shown, and where it is kept.

    Attributes:
        quiet: results, notes and errors alone.
        verbose: also details.
        log: takes every sentence, without a word that could name a patient.
        deaf: whether the log did not take the last one.
    """

    quiet: bool = False
    verbose: bool = False
    log: TextIO | None = None
    deaf: bool = False


volume = Volume()


def set_up(quiet: bool, verbose: bool, log_file: Path | None) -> None:
    """Choose how much is shown.

    Raises:
        OSError: the log file cannot be written.
    """
    if volume.log:
        with suppress(OSError):
            volume.log.close()  # of an earlier command in this process
    volume.quiet, volume.verbose, volume.deaf = quiet, verbose, False
    volume.log = log_file.open("a", encoding="utf-8", errors="backslashreplace") if log_file else None


def begin(sentence: str) -> None:
    """The first line of a call, in the log alone; it names the command and the version, so nobody.

    Raises:
        GradeError: the log does not take it. Later lines that it does not take end nothing.
    """
    if (log := volume.log) is None:
        return
    try:
        _write(log, "begin", sentence)
    except OSError as error:
        volume.log = None
        with suppress(OSError):
            log.close()
        raise GradeError(
            f"the log {log.name} cannot be written: {error.strerror}; free some disk space, or name another file."
        ) from error


def any_terminal() -> None:
    """Let every stream take every character: one that a terminal's encoding lacks is spelled in ASCII."""
    codecs.register_error("spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")


def fail(sentence: str, code: int = 1) -> NoReturn:
    """End with one sentence on standard error and an exit code."""
    kind = "interrupted" if code == INTERRUPTED else "error"
    _log(kind, sentence)
    _tell(f"[bold red]{kind}:[/] {escape(shown(sentence))}")
    sys.exit(code)


def note(sentence: str) -> None:
    """Something the user should know, not an error."""
    _log("note", sentence)
    _tell(f"[yellow]note:[/] {escape(shown(sentence))}")


def say(sentence: str) -> None:
    """A step that was done."""
    _log("step", sentence)
    if not volume.quiet:
        _tell(f"[dim]{escape(shown(sentence))}[/]")


def detail(sentence: str) -> None:
    """What only `--verbose` and the log show."""
    _log("detail", sentence)
    if volume.verbose:
        _tell(f"[dim]{escape(shown(sentence))}[/]")


def answer(sentence: str) -> None:
    """A line on standard output."""
    _log("answer", sentence)
    out.print(escape(shown(sentence)), soft_wrap=True)


def show_json(value: Any) -> None:
    """One JSON document on standard output.

    Args:
        value: of what JSON knows; numbers are finite.
    """
    print_whole(json.dumps(_shown_values(value), indent=2, allow_nan=False))


def print_whole(text: str) -> None:
    """A text that is neither wrapped nor styled."""
    out.file.write(f"{text}\n")
    out.file.flush()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; cells are shown as they are, and wrapped between words on a narrow terminal."""
    _log("table", title)
    grid = Table(title=escape(shown(title)), title_justify="left", title_style="bold", box=None, pad_edge=False)
    grid.show_header = any(columns)
    cells = [[shown(cell) for cell in row] for row in rows]
    longest = [_longest_word(column, *(row[place] for row in cells)) for place, column in enumerate(columns)]
    for column, least in zip(columns, longest, strict=True):
        grid.add_column(column, min_width=least)
    for row in cells:
        grid.add_row(*map(escape, row))
    # A word is never broken: where the terminal is too narrow for the longest ones, lines grow longer than it.
    out.print(grid, width=max(out.width, sum(longest) + len(longest)), crop=False)


def _longest_word(*texts: str) -> int:
    return max((cell_len(word) for text in texts for word in text.split()), default=0)


def figure(value: float | None, digits: int = 3) -> str:
    """A number for a table; undefined stays undefined."""
    return "undefined" if value is None else f"{value:.{digits}f}"


@contextmanager
def bar(description: str, total: int | None) -> Iterator[Counter]:
    """A progress bar that ends with its block."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=volume.quiet) as progress:
        yield Counter(progress, description, total)


class Counter:
    """One bar of `bar`."""

    def __init__(self, progress: Progress, description: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(escape(description), total=total)

    def __call__(self, _: object = None) -> None:
        """One more is done; takes and ignores what was done."""
        self._progress.advance(self._task)

    def of(self, total: int) -> Counter:
        """The same bar, once it is known how many there are."""
        self._progress.update(self._task, total=total)
        return self

    def describe(self, text: str) -> None:
        """Change the text before the bar."""
        self._progress.update(self._task, description=escape(shown(text)))


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done now."""
    if volume.quiet:
        yield lambda _: None
        return
    with err.status("") as status:
        yield lambda text: status.update(escape(shown(text)))


def shown(text: str) -> str:
    """The text as it may be printed."""
    if not hidden:
        return text
    words = "|".join(map(_pattern, sorted(hidden, key=len, reverse=True)))
    return re.sub(rf"(?<!\w)({words})(?!\w)", lambda found: hidden[found[0]], text)


def _pattern(word: str) -> str:
    """A number is hidden where it stands alone, not where it is a part of another."""
    return rf"(?<![\d.,]){word}(?!\.?\d)" if word.isdecimal() else re.escape(word)


def _shown_values(value: Any) -> Any:
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        return {shown(str(key)): _shown_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown_values(inner) for inner in value]
    return value


def _tell(markup: str) -> None:
    """A line on standard error; where that is a file on a full disk, the work continues without it."""
    try:
        err.print(markup, soft_wrap=True)
    except OSError:
        with suppress(OSError), err.capture():  # takes the line out of the console, which would keep it
            pass


def _log(kind: str, sentence: str) -> None:
    if (log := volume.log) is None:
        return
    from cli.gate import public  # here, since it reads this program's texts

    try:
        _write(log, kind, public(shown(sentence)))
        volume.deaf = False
    except OSError as error:  # hours of work, or a service, do not end for it
        if not volume.deaf:
            volume.deaf = True
            _tell(
                f"[yellow]note:[/] the log lacks lines: {escape(error.strerror or str(error))}; free some disk space."
            )


def _write(log: TextIO, kind: str, text: str) -> None:
    log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {kind}: {text}\n")
    log.flush()


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """What stands in place of characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(char if char.isascii() else ascii(char)[1:-1] for char in missing.translate(_PLAIN)), error.end
