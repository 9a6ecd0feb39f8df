"""A card is woken through the driver, in its order; without a driver nothing happens."""

import ctypes
from collections.abc import Callable

import pytest

from deploy.runtimes import wake as room
from deploy.runtimes.wake import DRIVER, wake


class Driver:
    """Writes down what is asked of it, and fails at one call."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.asked = failing, list[tuple[str, int]]()

    def __getattr__(self, name: str) -> Callable[..., int]:
        def asked(*given: object) -> int:
            self.asked.append((name, int(getattr(given[-1], "value", given[-1]))))
            return 100 if name == self.failing else 0

        return asked


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()

    def loaded(name: str) -> Driver:
        assert name == DRIVER
        return made

    monkeypatch.setattr(room.ctypes, "CDLL", loaded)
    return made


@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:3", 3)])
def test_the_context_of_the_card_asked_for_is_made(driver: Driver, device: str, index: int) -> None:
    thread = wake(device)
    assert thread is not None
    thread.join(10)
    assert [name for name, _ in driver.asked] == ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"]
    assert driver.asked[1] == ("cuDeviceGet", index)


@pytest.mark.parametrize("failing", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"])
def test_a_driver_that_fails_is_asked_no_further(driver: Driver, failing: str) -> None:
    driver.failing = failing
    assert room._make_context(0) is False
    assert driver.asked[-1][0] == failing


def test_without_a_driver_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(room.ctypes, "CDLL", missing)
    assert room._make_context(0) is False


def test_a_cpu_is_not_woken() -> None:
    assert wake("cpu") is None
