"""TensorBoard curves, where the settings ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import RunError
from toolkit.training.runs.run import EpochRow

try:
    from torch.utils.tensorboard.writer import SummaryWriter
except ImportError:  # an extra of this package; asked for below
    SummaryWriter = None  # type: ignore[assignment,misc]


@contextmanager
def scalar_log(folder: Path, wanted: bool, finished: int) -> Iterator[Callable[[EpochRow], None]]:
    """A function that adds an epoch to the curves; it does nothing when they are not wanted.

    Args:
        folder: the run's; the curves go to `tensorboard` in it.
        wanted: the setting.
        finished: epochs that are kept; later ones, of a training that was cut off, are hidden.

    Raises:
        RunError: TensorBoard is not installed.
    """
    if not wanted:
        yield lambda row: None
        return
    if SummaryWriter is None:
        raise RunError(
            "training.tensorboard = true, but TensorBoard is not installed; pip install 'glioma-grade[tensorboard]'."
        )
    with SummaryWriter(str(folder / "tensorboard"), purge_step=finished + 1) as writer:

        def add(row: EpochRow) -> None:
            for name, value in row.model_dump(exclude={"epoch"}, exclude_none=True).items():
                writer.add_scalar(name, value, row.epoch)

        yield add
