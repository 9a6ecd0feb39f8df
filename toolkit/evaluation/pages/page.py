"""What all pages share: one template, one style sheet, and how numbers are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from toolkit.evaluation.metrics import Interval


def render(template: str, **content: Any) -> str:
    """A page: a template of this folder, filled."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(number=number, interval=interval)
    return pages.get_template(template).render(**content)


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits behind the point; undefined stays undefined."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval(limits: Interval) -> str:
    """A value with its 95 % interval, where there is one."""
    value, low, high = limits
    if low is None or high is None:
        return number(value)
    return f"{number(value)} (95 % interval {low:.3f} to {high:.3f})"
