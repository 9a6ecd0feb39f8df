"""A page of tables and pictures, and the same tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from markupsafe import Markup

from toolkit.evaluation.pages.page import number, render

Triple: TypeAlias = tuple[float | None, float | None, float | None]


class Section(NamedTuple):
    """One table, or one picture.

    Attributes:
        title: above it.
        columns: headers; empty texts for a table without.
        rows: cells, the first of each row its header.
        picture: SVG; None for a table.
        text: sentences below the title.
    """

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    picture: Markup | None = None
    text: Sequence[str] = ()


class Head(NamedTuple):
    """The top of a page.

    Attributes:
        kind: of the page.
        name: what it is about.
        subtitle: one line.
        summary: what the reader has to know.
        notes: sentences.
        synthetic: whether the model was trained on phantoms.
    """

    kind: str
    name: str
    subtitle: str
    summary: str
    notes: Sequence[str]
    synthetic: bool = False


def sheet(head: Head, sections: Sequence[Section]) -> str:
    """A page: its head, then the sections."""
    return render("sheet.html", **head._asdict(), sections=sections)


def limits(figure: Triple, digits: int = 3, percent: bool = False) -> str:
    """A value with its 95 % interval in brackets, where there is one.

    Args:
        figure: value and limits.
        digits: behind the point.
        percent: write shares as percentages.
    """
    scale, end = (100, " %") if percent else (1, "")
    value, low, high = (None if one is None else one * scale for one in figure)
    if value is None:
        return "undefined"
    if low is None or high is None:
        return f"{number(value, digits)}{end}"
    return f"{number(value, digits)} ({number(low, digits)} to {number(high, digits)}){end}"
