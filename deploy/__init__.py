"""The model folder: made by export, used by prediction.

From Python: `from deploy import load_model; model = load_model("model"); answer = model.predict("patient_dir")`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.environment import prepare

if TYPE_CHECKING:
    from deploy.grading import Answer, Answers, GradingModel, load_model
    from deploy.in_memory import images

prepare()  # before any library is loaded

__all__ = ["Answer", "Answers", "GradingModel", "images", "load_model"]


def __getattr__(name: str) -> object:
    """Loaded when asked for, so that importing one room does not load all of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import deploy.grading
    import deploy.in_memory

    return getattr(deploy.in_memory if name == "images" else deploy.grading, name)
