"""The process of reception, from outside."""

from __future__ import annotations

import time
from collections.abc import Callable

from deploy.hospital.network.receive import receive
from deploy.hospital.service.child import Child
from deploy.hospital.service.work import ServiceStopped
from toolkit.config.service import ServiceSettings

_PATIENCE = 20.0  # seconds; the reception of a service killed a moment ago may still have the port


class Reception:
    """The process of reception, from outside; it is started again when it dies.

    Raises:
        ServiceStopped: the port cannot be opened, or no peer is known.
    """

    def __init__(self, settings: ServiceSettings, labels: bool) -> None:
        self._settings, self._labels = settings, labels
        self._start()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._child.alive

    @property
    def id(self) -> int:
        """Of its process."""
        return self._child.id

    def keep_alive(self, on_trouble: Callable[[str], None]) -> None:
        """Start it again when it is dead."""
        if self.alive:
            return
        on_trouble(f"reception ended with {self._child.ending()}; it is started again")
        self._child.pipe.close()
        self._start()

    def stop(self) -> None:
        """Take no more associations."""
        self._child.end()

    def _start(self) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            self._child = Child(receive, self._settings, self._labels)
            try:
                said = self._child.pipe.recv()
            except EOFError:
                said = f"reception ended with {self._child.ending()} before the port was open."
            if not said:
                return
            self._child.end()
            if "cannot be opened" not in said or time.monotonic() > until:
                raise ServiceStopped(said)
            time.sleep(0.5)
