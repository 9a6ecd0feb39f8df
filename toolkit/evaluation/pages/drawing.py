"""How a picture of a page is drawn: on a Matplotlib figure of its own; pyplot and its global state stay unused.

As SVG it takes the text colour of the page around it, so that it suits a light and a dark page alike.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#1d2530"  # in SVG it becomes the page's text colour
FIRST, SECOND = "#2f7fd0", "#cf6a2b"  # at least 3:1 on white and on near-black
MANY = (FIRST, SECOND, "#2e8b57", "#a855c8", "#c0397b", "#8a7a1f")  # each 3:1 on white and on near-black
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "grade",  # the same numbers give the same file
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def svg(draw: Callable[[Figure], None], alt: str, size: tuple[float, float] = (4.8, 3.6)) -> Markup:
    """A drawing as inline SVG, to be placed into an HTML page.

    Args:
        draw: fills the figure it is given.
        alt: what the picture says, for those who cannot see it.
        size: width and height, inches.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = file.getvalue()
    inline = text[text.index("<svg") + len("<svg") :].replace(INK, "currentColor")
    return Markup('<svg role="img" aria-label="{}"').format(alt) + Markup(inline)  # noqa: S704 (drawn here, no user text)


def png(draw: Callable[[Figure], None]) -> bytes:
    """A drawing as a PNG file on white, 960 x 720 pixels."""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.8, 3.6), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png")
    return file.getvalue()
