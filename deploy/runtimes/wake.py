"""The graphics card, woken while Python is still importing."""

from __future__ import annotations

import ctypes
from threading import Thread

DRIVER = "libcuda.so.1"


def wake(device: str) -> Thread | None:
    """Let the driver make the card's context in a thread; every library of this process shares it.

    No more than a head start: where there is no driver, or it fails, opening the runtime finds out and says so.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`, as a user gives it.

    Returns:
        The thread; None for a CPU.
    """
    if device == "cpu":
        return None
    index = device.rpartition(":")[2]
    thread = Thread(target=_make_context, args=(int(index) if index.isdecimal() else 0,), name="wake", daemon=True)
    thread.start()
    return thread


def _make_context(index: int) -> bool:
    """Whether there is one now. A context that is retained like this is never given back: the process ends with it."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return False
    card, context = ctypes.c_int(), ctypes.c_void_p()
    made = driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(card), index) == 0
    return bool(made and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), card) == 0)
