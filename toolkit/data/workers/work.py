"""What workers do with an item, and what the taker of their results sees, whether they are threads or processes."""

from __future__ import annotations

from typing import Protocol, Self, TypeVar

from toolkit.data.memory import Workspace

Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")


class Work(Protocol[Item_contra, Result_co]):
    """What is done with an item. It can be pickled: an object of a module's class, with plain attributes."""

    def __call__(self, item: Item_contra, workspace: Workspace, /) -> Result_co:
        """The result of an item; what it raises, the taker of the result gets.

        Args:
            item: to work on.
            workspace: of this worker; what the result keeps of it was made by `workspace.out`.
        """

    def lost(self, item: Item_contra, reason: str, /) -> Result_co:
        """The result of an item that ended the process of its worker twice; it may raise.

        Args:
            item: that is lost.
            reason: in one phrase.
        """


class Results(Protocol[Result]):
    """Results in the order of the items, worked on ahead of the one that is taken; to be entered.

    Attributes:
        workers: how many work at once; when lowered, fewer do.
    """

    workers: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def take(self, more: int = 1) -> Result | None:
        """The next result, None after the last; then `workers + more` items are done or being worked on."""

    def finished(self) -> list[Result]:
        """Results that are there and not yet taken, up to the first that raised or is still worked on."""
