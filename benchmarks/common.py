"""What the benchmarks share: timing, machine, table, JSON."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from toolkit.data.patients import match_modalities

PACKAGES = ("glioma-grade", "numpy", "nibabel", "imagecodecs", "monai", "torch", "onnxruntime", "onnxruntime-gpu")


def best_of(function: Callable[[], object], times: int) -> float:
    """Shortest wall time in seconds, after one call that does not count."""
    function()
    found = []
    for _ in range(times):
        start = perf_counter()
        function()
        found.append(perf_counter() - start)
    return min(found)


def linked(sources: Sequence[Path], out: Path, count: int) -> None:
    """A cohort of links to a few patients' files under many names."""
    for number in range(count):
        folder = out / f"patient{number:05}"
        folder.mkdir(parents=True)
        for name, file in match_modalities(sources[number % len(sources)]).modalities.items():
            link = folder / f"{folder.name}_{name}{''.join(file.suffixes[-2:])}"
            try:
                link.hardlink_to(file.resolve())
            except OSError:  # another file system
                link.symlink_to(file.resolve())


def machine() -> dict[str, Any]:
    """Processor, GPU, versions and commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": _processor(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def arguments(description: str, *options: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """The command line of a benchmark; every one takes --out."""
    parser = argparse.ArgumentParser(description=description)
    for name, settings in options:
        parser.add_argument(name, **settings)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser.parse_args()


def report(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], out: Path | None) -> None:
    """Print a table and, where asked for, write it as JSON with the machine."""
    table = Table(*columns, title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console().print(table)
    if out:
        content = {"title": title, "machine": machine(), "rows": [dict(zip(columns, row, strict=True)) for row in rows]}
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def keep(found: dict[str, Any], out: Path | None) -> None:
    """Print figures as JSON and, where asked for, write them with the machine."""
    print(json.dumps(found, indent=1, default=float))
    if out:
        out.write_text(json.dumps({"machine": machine(), **found}, indent=1, default=float) + "\n", encoding="utf-8")
