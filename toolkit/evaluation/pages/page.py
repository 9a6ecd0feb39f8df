"""What all pages share: one templating environment, one style sheet, and how numbers are written."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

if TYPE_CHECKING:  # with it comes scipy.stats, half a second that a patient's page does not need
    from toolkit.evaluation.metrics import Interval

_PIECE = 16  # characters of a hash after which a line may break


def render(template: str, package: str = "toolkit.evaluation.pages", **content: Any) -> str:
    """A page: a template, filled.

    Args:
        template: name of the file.
        package: whose folder holds it; what it extends and includes may be in this one as well.
        content: what the template asks for; a missing word is an error.
    """
    return _environment(package).get_template(template).render(**content)


@lru_cache
def _environment(package: str) -> Environment:
    """Compiled templates are kept: a prediction writes thousands of pages."""
    places = [Path(str(files(package))), Path(__file__).parent]
    pages = Environment(
        loader=FileSystemLoader(places),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(number=number, interval=interval, keyed=keyed, soft=soft, css=css)
    return pages


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits behind the point; undefined stays undefined."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def keyed(value: float | None, key: str, digits: int = 3) -> str:
    """A number shown rounded, with its full value and its name in the JSON next to it."""
    if value is None:
        return "undefined"
    return Markup('<data value="{}" data-key="{}">{}</data>').format(repr(value), key, number(value, digits))


def interval(limits: Interval) -> str:
    """A value with its 95 % interval, where there is one."""
    value, low, high = limits
    if low is None or high is None:
        return number(value)
    return f"{number(value)} (95 % interval {low:.3f} to {high:.3f})"


def soft(text: str) -> Markup:
    """A hash that may be broken across lines."""
    return Markup("<wbr>").join(escape(text[start : start + _PIECE]) for start in range(0, len(text), _PIECE))


def css(text: str) -> Markup:
    """A text as it may stand between quotes in a style sheet, whatever its characters."""
    return Markup("").join(c if c.isascii() and c.isalnum() else f"\\{ord(c):x} " for c in text)
