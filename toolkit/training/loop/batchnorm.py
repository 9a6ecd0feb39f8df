"""BatchNorm's statistics: frozen, shared, or put together from the batches that several ranks saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from toolkit.training.network.network import GradeNet

SETTLED = 50  # batches; at the networks' momentum of 0.1, 0.5 % is then left of the values that statistics start with


def settled(network: GradeNet) -> bool:
    """Whether running statistics have seen enough batches to normalise by; also true where there are none."""
    counts = [module.num_batches_tracked for module in _layers(network)]
    return all(count is None or int(count) >= SETTLED for count in counts)


def freeze_statistics(network: GradeNet) -> None:
    """From now on BatchNorm normalises by its running statistics and leaves them alone; `train()` ends that."""
    for module in _layers(network):
        module.eval()


def share_statistics(network: GradeNet) -> GradeNet:
    """The same network, whose BatchNorm normalises over a batch that is spread over all ranks."""
    return cast(GradeNet, nn.SyncBatchNorm.convert_sync_batchnorm(network))  # type: ignore[no-untyped-call]


class RunningStatistics:
    """Running means and variances over batches of several ranks, as if one had seen them one after the other.

    With momentum m a statistic r becomes (1 - m) r + m x at every batch. A rank that starts from r and sees some of
    the batches ends at (1 - m)^n r + c; what c, its own contribution, is worth at the end depends on how many batches
    come later. The sum of all contributions is added to (1 - m)^N r.

    Args:
        network: before the batches. Frozen and shared statistics are left out: these are the same on every rank anyway.
        own: for each batch of the step, in order, whether this rank sees it; ranks see batches that follow each other.
    """

    def __init__(self, network: GradeNet, own: Sequence[bool]) -> None:
        self._layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d) and m.training]
        pairs = [(b, cast(float, m.momentum)) for m in self._layers for b in (m.running_mean, m.running_var)]
        self._device = next(network.parameters()).device
        self._buffers = [buffer for buffer, _ in pairs if buffer is not None]
        self._keep = 1 - pairs[0][1] if pairs else 1.0  # one momentum for all: the network's blocks have no other
        self._before = self._flat()
        self._count, self._seen = len(own), sum(own)
        self._later = list(reversed(own)).index(True) if self._seen else 0

    def contribution(self) -> Tensor:
        """(S,) this rank's, after its batches, S numbers in all statistics; to be summed over the ranks."""
        return (self._flat() - self._keep**self._seen * self._before) * self._keep**self._later

    @torch.no_grad()
    def put(self, total: Tensor) -> None:
        """Set the statistics from the sum (S,) of all contributions."""
        if not self._buffers:
            return
        found = self._keep**self._count * self._before + total
        torch._foreach_copy_(self._buffers, list(torch.split(found, [buffer.numel() for buffer in self._buffers])))
        tracked = [layer.num_batches_tracked for layer in self._layers if layer.num_batches_tracked is not None]
        torch._foreach_add_(tracked, self._count - self._seen)

    def _flat(self) -> Tensor:
        return torch.cat(self._buffers) if self._buffers else torch.zeros(0, device=self._device)


def _layers(network: GradeNet) -> list[nn.BatchNorm3d | nn.SyncBatchNorm]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm3d | nn.SyncBatchNorm)]
