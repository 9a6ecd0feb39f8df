"""A process of the service: started fresh, spoken to over a pipe, gone when the service is."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Child:
    """A process that runs `function(*words, connection)`.

    Not by `multiprocessing`, whose new processes run the program's main file again.

    Args:
        function: of a module, or a `partial` of one; it can be pickled, as can the words.
        words: its arguments.
    """

    def __init__(self, function: Callable[..., None], *words: object) -> None:
        self.pipe, theirs = Pipe()
        number = str(theirs.fileno())
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", __name__, number, str(os.getpid())]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        with suppress(OSError):  # it has died at once: the first read says so
            self.pipe.send((function, words))

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def id(self) -> int:
        """Of the process."""
        return self._process.pid

    def ending(self) -> str:
        """Wait for its end, and say what it was."""
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def end(self, seconds: float = 10.0) -> None:
        """Close the pipe, which asks it to end; kill it when it does not."""
        self.pipe.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _main() -> None:
    link, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    with suppress(OSError, AttributeError):  # elsewhere than on Linux the closed pipe has to do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which lets the study in hand be finished
    function, words = link.recv()
    function(*words, link)


if __name__ == "__main__":
    _main()
