"""Who answers when: on the processor two or more at a time, on a card one after the other while that works.

One network alone leaves cores idle between its layers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

from deploy.runtime import Array, Runtime, RuntimeOutputs
from toolkit.data.workers.choose import MOST_THREADS
from toolkit.machine import cores

# Items asked for before the first is taken; each may hold a scan of 22 MB. A card's first answer takes seconds, and the
# processor goes so far meanwhile.
AHEAD = 6

Given = ParamSpec("Given")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """Runs calls in threads, in the order given.

    All runtimes on a card share a thread of their own: each keeps memory for the batch at hand.

    Args:
        count: of lanes.
        threads: that a runtime on the processor is to have in each; 0: as many as it takes.
    """

    def __init__(self, count: int, threads: int = 0) -> None:
        self.threads = threads
        self._pool, self._card = ThreadPoolExecutor(count, "lane"), ThreadPoolExecutor(1, "card")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._pool, self._card):
            pool.shutdown(cancel_futures=True)

    def start(self, call: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Future[Result]:
        """Run a call in a lane; what it raises, `result` of the future raises."""
        return self._pool.submit(call, *given, **named)

    def ask(
        self, runtime: Runtime, call: Callable[Given, Result], *given: Given.args, **named: Given.kwargs
    ) -> Future[Result]:
        """Run a call that uses a runtime: in a lane where this is on the processor, else in the card's."""
        return (self._pool if runtime.device == "cpu" else self._card).submit(call, *given, **named)

    def answer(self, runtime: Runtime, scans: Array) -> Future[RuntimeOutputs]:
        """A runtime's answer to a batch; see `Runtime.infer`."""
        return self.ask(runtime, runtime.infer, scans)


def lanes_here() -> Lanes:
    """Lanes that share the cores of this machine, as many as readers; one for a single core."""
    count = min(readers_here(), cores())
    return Lanes(count, cores() // count)


def readers_here() -> int:
    """Threads that read patients for the lanes: one for four of this machine's cores, but two at least."""
    return max(2, min(cores() // 4, MOST_THREADS))


def some_later(asked: Iterable[Item]) -> Iterator[Item]:
    """The same items, each once a few more have been asked for, so that no lane waits for the taker."""
    waiting: deque[Item] = deque()
    for one in asked:
        waiting.append(one)
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting
