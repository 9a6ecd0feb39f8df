"""`grade --no-phi`: names for patients that are not theirs; results that were asked for still name them.

What may be printed at all is decided in `cli.gate`, word by word. This file only makes that readable: a patient that is
known here is called `patient 3` wherever he is met.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from cli.console import hidden
from toolkit.config import DataSettings, LabelTable
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
    hide_below(*paths)
    for path in paths:
        hidden.setdefault(printable(str(path)), "a path")


def hide_below(*paths: Path) -> None:
    """Hide the patients below some folders, if `enable` was called."""
    folders = [path for path in paths if path.is_dir()]
    if hidden and folders:
        try:
            hide(find_patients(folders))
        except GradeError:
            return  # no patients there


def hide_cohort(data: DataSettings) -> None:
    """Hide the patients that settings name, if `enable` was called."""
    hide_below(*(place for place in (data.cohort, data.validation) if isinstance(place, Path)))
    hide_table(data.labels)


def hide_table(table: LabelTable | None) -> None:
    """Hide the ids of a table of grades, if `enable` was called: it may name people whose images are not here."""
    if not hidden or table is None:
        return
    from toolkit.data.labels import read_labels  # here, since it loads openpyxl

    try:
        names = read_labels(table).ids
    except GradeError:
        return  # the command itself says what is wrong with it
    known = _known()
    for number, name in enumerate(dict.fromkeys(name for name in names if name not in hidden), start=known + 1):
        hidden[name] = f"patient {number}"


def hide(patients: Iterable[Patient]) -> None:
    """Hide patients, if `enable` was called."""
    if not hidden:
        return
    known = _known()
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


def _known() -> int:
    return len({name for name in hidden.values() if re.fullmatch(r"patient \d+", name)})


def _quiet_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Where it broke, without what the error says: that may hold a path."""
    lines = traceback.format_tb(trace)
    sys.stderr.write("".join([*lines, f"{kind.__name__} (--no-phi hides its message)\n"]))
