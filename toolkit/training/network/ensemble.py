"""Several networks that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from toolkit.training.network.network import GradeNet, Outputs


class Ensemble(nn.Module):
    """The mean of the members' logits and evidence, their features side by side.

    The mean keeps what holds for one network: the spatial mean of the evidence is the difference of the logits.
    Features of networks that were trained apart have no axes in common, so that their mean would mean nothing.
    """

    def __init__(self, members: Sequence[GradeNet]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, scan: Tensor) -> Outputs:
        """Grade a batch.

        Args:
            scan: (B, 4, X, Y, Z), z-scores.

        Returns:
            Logits (B, 2), features (B, M F) of M members, evidence (B, x, y, z).
        """
        answers = [member(scan) for member in self.members]
        return Outputs(
            logits=torch.stack([answer.logits for answer in answers]).mean(dim=0),
            features=torch.cat([answer.features for answer in answers], dim=1),
            evidence=torch.stack([answer.evidence for answer in answers]).mean(dim=0),
        )


def members_of(network: nn.Module) -> list[GradeNet]:
    """The networks of an ensemble; a network is the only one of itself."""
    if isinstance(network, Ensemble):
        return [cast(GradeNet, member) for member in network.members]
    return [cast(GradeNet, network)]
