"""BatchNorm's statistics: frozen, shared, or put together from the batches that several ranks saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from toolkit.training.network import GradeNet


def freeze_statistics(network: GradeNet) -> None:
    """From now on BatchNorm normalises by its running statistics and leaves them alone; `train()` ends that."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d | nn.SyncBatchNorm):
            module.eval()


def share_statistics(network: GradeNet) -> GradeNet:
    """The same network, whose BatchNorm normalises over a batch that is spread over all ranks."""
    return cast(GradeNet, nn.SyncBatchNorm.convert_sync_batchnorm(network))  # type: ignore[no-untyped-call]


class RunningStatistics:
    """Running means and variances over batches of several ranks, as if one had seen them one after the other.

    With momentum m a statistic r becomes (1 - m) r + m x at every batch. A rank that starts from r and sees some of
    the batches ends at (1 - m)^n r + c; what c, its own contribution, is worth at the end depends on how many batches
    come later. The sum of all contributions goes on top of (1 - m)^N r.

    Args:
        network: before the batches. Frozen and shared statistics are left out: these are the same on every rank anyway.
        own: for each batch of the step, in order, whether this rank sees it; ranks see batches that follow each other.
    """

    def __init__(self, network: GradeNet, own: Sequence[bool]) -> None:
        self._layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d) and m.training]
        pairs = [(b, cast(float, m.momentum)) for m in self._layers for b in (m.running_mean, m.running_var)]
        self._buffers = [(buffer, 1 - momentum) for buffer, momentum in pairs if buffer is not None]
        self._before = [buffer.clone() for buffer, _ in self._buffers]
        self._count, self._seen = len(own), sum(own)
        self._later = list(reversed(own)).index(True) if self._seen else 0

    def contributions(self) -> list[Tensor]:
        """This rank's, after its batches; to be summed over the ranks."""
        return [
            (buffer - keep**self._seen * before) * keep**self._later
            for (buffer, keep), before in zip(self._buffers, self._before, strict=True)
        ]

    @torch.no_grad()
    def put(self, sums: Sequence[Tensor]) -> None:
        """Set the statistics from the sums of all contributions."""
        for (buffer, keep), before, total in zip(self._buffers, self._before, sums, strict=True):
            buffer.copy_(keep**self._count * before + total)
        for layer in self._layers:
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked += self._count - self._seen
