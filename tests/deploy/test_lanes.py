"""Calls in lanes: on the processor two at the same time, on a card one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Barrier, Lock

import numpy as np
import pytest

from deploy.lanes import AHEAD, Lanes, lanes_here, readers_here, some_later
from deploy.runtime import RuntimeOutputs


@dataclass
class Named:
    """A runtime that is nothing but a place."""

    device: str
    name: str = "made"
    precision: str = "fp32"
    chosen: str = ""
    engine_hash: str = ""

    def infer(self, scans: np.ndarray) -> RuntimeOutputs:
        return RuntimeOutputs(scans, scans, scans)


def test_two_calls_run_at_the_same_time() -> None:
    met = Barrier(2, timeout=20)
    with Lanes(2) as lanes:
        both = [lanes.start(met.wait) for _ in range(2)]
        assert sorted(one.result() for one in both) == [0, 1]


def test_a_card_answers_one_after_the_other_while_the_processor_works() -> None:
    met, busy = Barrier(3, timeout=20), Lock()

    def on_card() -> int:
        assert busy.acquire(blocking=False)
        try:
            return met.wait()
        finally:
            busy.release()

    with Lanes(2) as lanes:
        first = [lanes.ask(Named("cuda:0"), on_card), *(lanes.ask(Named("cpu"), met.wait) for _ in range(2))]
        second = [lanes.ask(Named("cuda:1"), on_card), *(lanes.ask(Named("cpu"), met.wait) for _ in range(2))]
        assert [sorted(one.result() for one in each) for each in (first, second)] == [[0, 1, 2]] * 2
        assert lanes.answer(Named("cpu"), np.ones(3, np.float32)).result().logits.tolist() == [1, 1, 1]


def test_what_a_call_raises_its_result_raises() -> None:
    def fails() -> None:
        raise ValueError("no")

    with Lanes(1) as lanes, pytest.raises(ValueError, match="no"):
        lanes.start(fails).result()


@pytest.mark.parametrize(
    ("here", "readers", "lanes", "threads"),
    [(1, 2, 1, 1), (2, 2, 2, 1), (4, 2, 2, 2), (8, 2, 2, 4), (12, 3, 3, 4), (16, 4, 4, 4), (64, 4, 4, 16)],
)
def test_lanes_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, here: int, readers: int, lanes: int, threads: int
) -> None:
    monkeypatch.setattr("deploy.lanes.cores", lambda: here)
    assert readers_here() == readers
    met = Barrier(lanes, timeout=20)
    with lanes_here() as those:
        assert those.threads == threads
        assert sorted(one.result() for one in [those.start(met.wait) for _ in range(lanes)]) == list(range(lanes))


def test_items_come_in_order_and_few_are_asked_for_ahead() -> None:
    asked: list[int] = []

    def ask() -> Iterator[int]:
        for number in range(AHEAD + 4):
            asked.append(number)
            yield number

    taken = some_later(ask())
    assert next(taken) == 0
    assert asked == list(range(AHEAD + 1))
    assert list(taken) == list(range(1, AHEAD + 4))
    assert list(some_later([7])) == [7]
