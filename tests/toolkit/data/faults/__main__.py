"""Write every case below a folder: `python -m tests.toolkit.data.faults OUT`."""

import csv
import sys
from pathlib import Path

from . import CASES


def write_all(out: Path) -> None:
    """Write the patients of all categories, and `expected.csv` in the manner of a results table."""
    rows = []
    for category, cases in CASES.items():
        for case in cases:
            folder = case.write(out / category)
            place = folder.relative_to(out).as_posix()
            rows.append((folder.name, place, category, case.name, "refused" if case.reason else "graded", case.reason))
    with (out / "expected.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([("patient", "folder", "category", "case", "outcome", "reason"), *rows])


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
