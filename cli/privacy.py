"""`grade --no-phi`: what is printed names no patient; results that were asked for still do.

Shell logs, job logs and tickets are copied around; ids, paths and file names of patients are replaced by a number each.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from cli.console import hidden
from toolkit.config import DataSettings
from toolkit.data.patients import Patient, find_patients, printable
from toolkit.errors import GradeError

_TAIL = re.compile(r"(t1|t2|flair|t1ce|t1gd|t1n|t1c|t2w|t2f|seg)(\.nii)?(\.gz)?\s*$", re.IGNORECASE)


def enable(words: Iterable[str]) -> None:
    """Hide from now on the patients below whatever folders a command line names, those paths, and tracebacks' messages.

    Args:
        words: of the command line.
    """
    hidden["\0"] = "nothing"  # no name holds it: that something is here says that names are to be hidden
    sys.excepthook = _quiet_hook
    paths = [Path(word) for word in words if "/" in word or Path(word).exists()]
    for path in paths:
        hide_below(path)
        hidden.setdefault(printable(str(path)), "a path")


def hide_below(path: Path) -> None:
    """Hide the patients below a folder, if `enable` was called."""
    if hidden and path.is_dir():
        try:
            hide(find_patients([path]))
        except GradeError:
            return  # no patients there


def hide_cohort(data: DataSettings) -> None:
    """Hide the patients that settings name, if `enable` was called."""
    for place in (data.cohort, data.validation):
        if isinstance(place, Path):
            hide_below(place)


def hide(patients: Iterable[Patient]) -> None:
    """Hide patients, if `enable` was called."""
    if not hidden:
        return
    known = len({name for name in hidden.values() if re.fullmatch(r"patient \d+", name)})
    new = [patient for patient in patients if str(patient.folder) not in hidden]
    for number, patient in enumerate(new, start=known + 1):
        name = f"patient {number}"
        files = [entry.name for entry in patient.folder.iterdir()] if patient.folder.is_dir() else []
        for word in (str(patient.folder), patient.id, patient.folder.name):
            hidden.setdefault(word, name)
        for file in files:
            tail = _TAIL.search(file)
            hidden.setdefault(file, f"{name}'s {tail[1].lower() if tail else 'file'}")
    for word in list(hidden):
        hidden.setdefault(printable(word), hidden[word])


def _quiet_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Where it broke, without what the error says: that may hold a path."""
    lines = traceback.format_tb(trace)
    sys.stderr.write("".join([*lines, f"{kind.__name__} (--no-phi hides its message)\n"]))
