"""What runtimes do on the processor, two answers at a time: one network alone leaves cores idle between its layers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

from deploy.runtime import Array, Runtime, RuntimeOutputs
from toolkit.machine import cores

LANES = 2
AHEAD = 2  # items asked for before the first is taken; each may hold a scan of 22 MB

Given = ParamSpec("Given")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """Runs calls in threads, in the order given.

    A runtime on a card is called at once and by the caller's thread alone: it keeps memory for the batch at hand.

    Args:
        count: of lanes.
        threads: that a runtime on the processor is to have in each; 0: as many as it takes.
    """

    def __init__(self, count: int, threads: int = 0) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(count, "lane")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, call: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Future[Result]:
        """Run a call in a lane; what it raises, `result` of the future raises."""
        return self._pool.submit(call, *given, **named)

    def ask(
        self, runtime: Runtime, call: Callable[Given, Result], *given: Given.args, **named: Given.kwargs
    ) -> Future[Result]:
        """Run a call that uses a runtime: in a lane where this is on the processor, else before this returns."""
        if runtime.device == "cpu":
            return self.start(call, *given, **named)
        done: Future[Result] = Future()
        done.set_result(call(*given, **named))
        return done

    def answer(self, runtime: Runtime, scans: Array) -> Future[RuntimeOutputs]:
        """A runtime's answer to a batch; see `Runtime.infer`."""
        return self.ask(runtime, runtime.infer, scans)


def lanes_here() -> Lanes:
    """Two lanes that share the cores of this machine, or one for a single core."""
    count = min(LANES, cores())
    return Lanes(count, cores() // count)


def some_later(asked: Iterable[Item]) -> Iterator[Item]:
    """The same items, each once a few more have been asked for, so that no lane waits for the taker."""
    waiting: deque[Item] = deque()
    for one in asked:
        waiting.append(one)
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting
