"""A reader's process: started fresh, given one item at a time over a pipe, gone when its parent is."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

READY = "ready"
_LIKELIER = "500"  # where memory runs out, the kernel ends a reader, whose patient is read again, and not its parent


class Outcome:
    """What a block comes to: its value, or what it raised."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: Exception | None = None

    def __enter__(self) -> Outcome:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


def _main() -> None:
    jobs, life, file = Connection(int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_LIKELIER, encoding="ascii")
    from toolkit.data.memory import Workspace
    from toolkit.data.workers.slots import Place

    place = Place(file)
    workspace = Workspace(out=place.array)
    with suppress(EOFError, OSError):  # the parent has closed the pipe
        work = jobs.recv()
        jobs.send(READY)
        while True:
            slot, item = jobs.recv()
            place.begin(slot)
            with Outcome() as outcome:
                outcome.value = work(item, workspace)
            jobs.send(place.pack((outcome.value, outcome.error)))
    os._exit(0)


def _end_with(life: int) -> None:
    """Wait until nobody holds the other end of a pipe: the parent is gone, however it ended."""
    os.read(life, 1)
    os._exit(1)


if __name__ == "__main__":
    _main()
