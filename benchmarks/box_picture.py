"""The picture of `benchmarks.box`: ms a patient against cores, both logarithmic.

python -m benchmarks.box_picture benchmarks/results/box-h200.json --out benchmarks/box.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from benchmarks.common import arguments

LINES = {
    "MONAI": ("MONAI DataLoader + torch AMP", "#999999", "s"),
    "whole, threads": ("grade predict, readers in threads", "#c0504d", "o"),
    "whole, processes": ("grade predict, readers in processes", "#1f5fa8", "o"),
    "card": ("its readers alone", "#1f5fa8", ""),
    "door": ("opened and checked, threads", "#d9a441", ""),
    "libdeflate": ("bare libdeflate", "#222222", ""),
}
TICKS = (5, 10, 20, 50, 100, 200, 400)


def value(cell: Any) -> float | None:
    """Ms a patient of a part, however it reports them."""
    return cell.get("ms") if isinstance(cell, dict) else cell


def main() -> None:
    """Draw it."""
    given = arguments("The picture of benchmarks.box.", ("results", {"type": Path, "help": "its JSON"}))
    if given.out is None:
        raise SystemExit("name the picture: --out FILE.png")
    curve = json.loads(given.results.read_text(encoding="utf-8"))["curve"]
    rows = sorted(curve, key=lambda row: row.get("cores", 0))
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, (text, colour, marker) in LINES.items():
        points = [(row["cores"], found) for row in rows if (found := value(row.get(name))) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=text, color=colour, marker=marker, lw=1.5 if marker else 1.0)
    axes.set(xscale="log", yscale="log", xlabel="cores", ylabel="ms a patient")
    axes.xaxis.set_major_locator(FixedLocator([row["cores"] for row in rows if "cores" in row]))
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(given.out)


if __name__ == "__main__":
    main()
