"""Work for the tests of the workers: importable, so that other processes can do it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.memory import Workspace
from toolkit.errors import CohortError


@dataclass(frozen=True)
class Task:
    """Gives an item back with an array that is full of it.

    Attributes:
        size: of the array.
        folder: where each try leaves a file; None: nowhere.
        killed: items whose process is killed so often.
        raises: items that raise.
        seconds: that each takes.
    """

    size: int = 1000
    folder: Path | None = None
    killed: tuple[tuple[int, int], ...] = ()
    raises: tuple[int, ...] = ()
    seconds: float = 0.0

    def __call__(self, item: int, workspace: Workspace) -> tuple[int, Any]:
        tries = 0
        if self.folder:
            tries = len(list(self.folder.glob(f"{item}-*")))
            (self.folder / f"{item}-{tries}-{os.getpid()}").touch()
        if tries < dict(self.killed).get(item, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if item in self.raises:
            raise CohortError(f"item {item} is bad.")
        time.sleep(self.seconds)
        array = workspace.out((self.size,), np.float32)
        array[:] = item
        return item, array

    def lost(self, item: int, reason: str) -> tuple[int, Any]:
        return item, reason


class Stillborn:
    """Cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)

    def __call__(self, item: int, workspace: Workspace) -> int:
        return item

    def lost(self, item: int, reason: str) -> int:
        return item
