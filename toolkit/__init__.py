"""From patient folders to a calibrated, trained network.

From Python: `from toolkit import train; run = train("cohort")`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.environment import prepare

if TYPE_CHECKING:
    from toolkit.training.face import train

prepare()  # before any library is loaded

__all__ = ["train"]


def __getattr__(name: str) -> object:
    """Loaded when asked for: training loads torch, which prediction must not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("toolkit.training.face"), name)
