"""Where patients are: folders with images, each real one once, whatever links lead to it; and what they are called."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from toolkit.data.layout import is_evidence, not_patients, short_name

IMAGE = re.compile(r"\.(nii(\.gz)?|hdr|img(\.gz)?)\s*$", re.IGNORECASE)

_Place: TypeAlias = tuple[int, Path]  # which of the given paths it is below, and where


def find_folders(paths: Sequence[Path], is_modality: Callable[[str], bool]) -> list[Path]:
    """Folders at or below some paths that directly hold images.

    Each real folder is found once: by the path without links where there is one, else by the first link to it. The time
    is linear in the number of folders and links, and no depth is too much.

    Args:
        paths: absolute; folders.
        is_modality: whether the name of a file says that it is one of a patient's modalities.

    Returns:
        The folders in the order of the paths, below each sorted by path. One that may not be listed is among them: what
        is in it cannot be known.
    """
    seen: set[object] = set()
    found: list[_Place] = []
    waiting: list[_Place] = list(enumerate(paths))
    while waiting:
        links: list[_Place] = []
        for start in waiting:
            _search(start, seen, found, links, is_modality)
        waiting = links  # only once everything is found that is there without them
    return [folder for _, folder in sorted(found, key=lambda place: (place[0], place[1].parts))]


def _search(
    start: _Place, seen: set[object], found: list[_Place], links: list[_Place], is_modality: Callable[[str], bool]
) -> None:
    """Look below one folder; links are left for later."""
    number, folder = start
    stack = [folder]
    while stack:
        folder = stack.pop()
        if (known := identity(folder)) in seen:
            continue
        seen.add(known)
        try:
            with os.scandir(folder) as listing:
                entries = sorted((entry for entry in listing if entry.name[:1] != "."), key=lambda entry: entry.name)
        except OSError:
            found.append((number, folder))
            continue
        images = [entry.name for entry in entries if IMAGE.search(entry.name)]
        if images and not _evidence_alone(folder, images, is_modality):
            found.append((number, folder))
        inner = [entry for entry in entries if not IMAGE.search(entry.name) and _is_folder(entry)]
        names = {entry.name for entry in inner}
        passed_over = not_patients(folder, {entry.name for entry in entries} - names, names)
        inner = [entry for entry in inner if entry.name not in passed_over]
        links += [(number, folder / entry.name) for entry in inner if entry.is_symlink()]
        stack += [folder / entry.name for entry in reversed(inner) if not entry.is_symlink()]


def _evidence_alone(folder: Path, images: list[str], is_modality: Callable[[str], bool]) -> bool:
    """Whether these are maps that a report wrote, in a folder that was moved away from the results."""
    return not any(map(is_modality, images)) and is_evidence(folder / images[0])


def identity(folder: Path) -> object:
    """By which a real folder is known, whatever links lead to it."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - as the other calls here
    except OSError:
        return folder
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads round in a circle, or through a file


def unique_ids(folders: Sequence[Path]) -> list[str]:
    """What folders are called: by their names, by relative paths where several share one; different to the eye.

    Args:
        folders: absolute, at least one, each once.

    Returns:
        One line of UTF-8 for each. Names that would look the same (a control character and its escape spelled out,
        composed and decomposed letters, blanks at the end) are escaped in full.
    """
    names = [short_name(folder) for folder in folders]
    count = Counter(names)
    base = Path(os.path.commonpath([folder.parent for folder in folders]))
    names = [
        name if count[name] == 1 else folder.relative_to(base).as_posix()
        for name, folder in zip(names, folders, strict=True)
    ]
    looks = Counter(map(_look, names))
    ids = [printable(name) if looks[_look(name)] == 1 else _escaped(name) for name in names]
    return ids if len(set(map(_look, ids))) == len(ids) else list(map(_escaped, names))


def printable(name: str) -> str:
    """A name as one line of UTF-8, whatever bytes the file system holds: what cannot be printed is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


def _look(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", printable(name)).split())


def _escaped(name: str) -> str:
    """ASCII from which the name can be had again."""
    plain = name.encode("unicode_escape", "surrogatepass").decode("ascii")
    return re.sub(r"^ +| +$|(?<= ) +", lambda blanks: r"\x20" * len(blanks[0]), plain)
