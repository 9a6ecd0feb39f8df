"""What libraries find when they are loaded: variables that they read, packages that they need not load."""

from __future__ import annotations

import gc
import getpass
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType


def prepare() -> None:
    """Switch off what reports to a library's makers; give a user without a name one."""
    # From 1.29 on ONNX Runtime sends events, with an id that it keeps in the home folder, unless this is set.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in a container: torch and MONAI ask for one
        os.environ["USER"] = f"uid-{os.getuid()}"


@contextmanager
def loading() -> Iterator[None]:
    """Much is loaded that stays: the search for garbage, which would take a fifth of the time, waits until the end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Packages that a library loads if they are installed, although nothing here needs them: not found meanwhile.

    Where the library was imported before, it stays as it is.

    Args:
        names: of the packages.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: "not installed"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def instead(kinds: Mapping[str, type]) -> Iterator[None]:
    """Modules that are found as one class each, meanwhile, if they were not loaded before.

    Args:
        kinds: by the module's name; a class is called as the last word of that name, capitalised.
    """
    given = {name: ModuleType(name) for name in kinds if name not in sys.modules}
    for name, module in given.items():
        setattr(module, name.rpartition(".")[2].capitalize(), kinds[name])
    sys.modules.update(given)
    try:
        yield
    finally:
        for name in given:
            del sys.modules[name]
