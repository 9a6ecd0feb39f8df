"""Work done in threads, some items ahead of the one that is taken, in the order given."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

# Seconds that a thread may keep Python's lock while others wait. These work outside it and come back for moments; with
# Python's 5 ms, two of them checked 20 % fewer patients.
SWITCH = 5e-5

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ahead(Generic[Item, Result]):
    """Applies a function to items in threads; results come in the order of the items, and few are held.

    Args:
        function: of one item; where it raises, `take` does.
        items: to work on.
        workers: threads; when lowered later, fewer items are worked on at once.
    """

    def __init__(self, function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> None:
        self._function = function
        self._waiting = iter(items)
        self._ahead: deque[Future[Result]] = deque()
        self.workers = workers

    def __enter__(self) -> Self:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        self._pool = ThreadPoolExecutor(self.workers)
        self._fill(self.workers)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        sys.setswitchinterval(self._interval)

    def take(self, more: int = 1) -> Result | None:
        """The next result, None after the last; then `workers + more` items are done or being worked on."""
        if not self._ahead:
            return None
        result = self._ahead.popleft().result()
        self._fill(self.workers + more)
        return result

    def finished(self) -> list[Result]:
        """Results that are there and not yet taken, up to the first that raised or is still worked on."""
        found = []
        for future in self._ahead:
            if not future.done() or future.exception() is not None:
                break
            found.append(future.result())
        return found

    def _fill(self, most: int) -> None:
        for item in self._waiting:
            self._ahead.append(self._pool.submit(self._function, item))
            if len(self._ahead) >= most:
                break
