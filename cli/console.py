"""What the terminal shows: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
hidden: dict[str, str] = {}  # what is not to be printed -> what is printed instead; see `cli.privacy`


def fail(sentence: str) -> NoReturn:
    """End with one sentence on standard error and exit code 1."""
    err.print(f"[bold red]error:[/] {escape(shown(sentence))}", soft_wrap=True)
    sys.exit(1)


def note(sentence: str) -> None:
    """Something the user should know, not an error."""
    err.print(f"[yellow]note:[/] {escape(shown(sentence))}", soft_wrap=True)


def say(sentence: str) -> None:
    """A step that was done."""
    err.print(f"[dim]{escape(shown(sentence))}[/]", soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; cells are shown as they are."""
    grid = Table(title=escape(shown(title)), title_justify="left", title_style="bold", box=None, pad_edge=False)
    grid.show_header = any(columns)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(escape(shown(cell)) for cell in row))
    out.print(grid)


def figure(value: float | None, digits: int = 3) -> str:
    """A number for a table; undefined stays undefined."""
    return "undefined" if value is None else f"{value:.{digits}f}"


@contextmanager
def bar(description: str, total: int | None) -> Iterator[Counter]:
    """A progress bar that ends with its block."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        yield Counter(progress, description, total)


class Counter:
    """One bar of `bar`."""

    def __init__(self, progress: Progress, description: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(escape(description), total=total)

    def __call__(self, _: object = None) -> None:
        """One more is done; takes and ignores what was done."""
        self._progress.advance(self._task)

    def describe(self, text: str) -> None:
        """Change the text before the bar."""
        self._progress.update(self._task, description=escape(shown(text)))


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done now."""
    with err.status("") as status:
        yield lambda text: status.update(escape(shown(text)))


def shown(text: str) -> str:
    """The text as it may be printed."""
    if not hidden:
        return text
    words = "|".join(re.escape(word) for word in sorted(hidden, key=len, reverse=True))
    return re.sub(rf"(?<!\w)({words})(?!\w)", lambda found: hidden[found[0]], text)
