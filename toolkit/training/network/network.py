"""The network: a backbone, a head, and three outputs; BatchNorm folded for export."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from toolkit.config import NetworkSettings
from toolkit.training.network.backbones import FOLDABLE, AnyBackbone, build_backbone

GRADES = 2  # LGG, HGG

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


class Outputs(NamedTuple):
    """What the network says about a batch; float32 throughout.

    Attributes:
        logits: (B, 2), LGG and HGG.
        features: (B, F), the pooled feature map, before dropout.
        evidence: (B, x, y, z), for HGG where positive; its spatial mean is logits[:, 1] - logits[:, 0] without dropout.
    """

    logits: Tensor
    features: Tensor
    evidence: Tensor


class LinearHead(nn.Module):
    """Logits by a linear layer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, GRADES)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> logits (B, 2)."""
        return self.linear(features)  # type: ignore[no-any-return]

    def evidence(self, feature_map: Tensor, features: Tensor) -> Tensor:
        """Class activation map of HGG minus LGG, bias included.

        Args:
            feature_map: (B, F, x, y, z).
            features: (B, F), its spatial mean; not needed here.

        Returns:
            (B, x, y, z), in logits.

        Source: Zhou et al. 2016, "Learning deep features for discriminative localization".
        """
        weight = self.linear.weight[1] - self.linear.weight[0]  # (F,)
        return _weigh(feature_map, weight) + (self.linear.bias[1] - self.linear.bias[0])


class CosineHead(nn.Module):
    """Logits as `scale` times the cosine of features and class weights; no bias.

    Source: Cao et al. 2019, "Learning imbalanced datasets with label-distribution-aware margin loss".
    """

    scale: Tensor

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(GRADES, features))
        nn.init.xavier_uniform_(self.weight)
        self.register_buffer("scale", torch.tensor(scale))  # travels with the weights

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> logits (B, 2), within -scale..scale."""
        return self.scale * functional.linear(
            functional.normalize(features, dim=1), functional.normalize(self.weight, dim=1)
        )

    def evidence(self, feature_map: Tensor, features: Tensor) -> Tensor:
        """Class activation map of HGG minus LGG, divided by the features' length as the logits are.

        Args:
            feature_map: (B, F, x, y, z).
            features: (B, F), its spatial mean.

        Returns:
            (B, x, y, z), in logits.
        """
        direction = functional.normalize(self.weight, dim=1)
        length: Tensor = torch.linalg.vector_norm(features, dim=1).clamp_min(1e-12)  # (B,); floor as in normalize
        return _weigh(feature_map, self.scale * (direction[1] - direction[0])) / length[:, None, None, None]


class GradeNet(nn.Module):
    """Backbone, global average pooling, dropout, head.

    Pooling and head compute in float32 whatever the backbone computes in.
    """

    def __init__(self, backbone: AnyBackbone, head: LinearHead | CosineHead, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def forward(self, scan: Tensor) -> Outputs:
        """Grade a batch.

        Args:
            scan: (B, 4, X, Y, Z), z-scores.
        """
        feature_map = self.backbone(scan)  # (B, F, x, y, z)
        with torch.autocast(scan.device.type, enabled=False):
            feature_map = feature_map.float()
            features = feature_map.mean(dim=(2, 3, 4))  # (B, F)
            logits = self.head(self.dropout(features))  # (B, 2)
            evidence = self.head.evidence(feature_map, features)  # (B, x, y, z)
        return Outputs(logits, features, evidence)


def build_network(settings: NetworkSettings, cosine_head: bool, scale: float = 1.0) -> GradeNet:
    """A network with fresh weights, drawn from torch's global generator.

    Args:
        settings: architecture, normalisation and dropout; `pretrained` is left to `pretrained.load_pretrained`.
        cosine_head: the head that LDAM needs, in place of the linear one.
        scale: of the cosines, LDAM's s; a state dict brings its own.
    """
    backbone = build_backbone(settings)
    features = backbone.width
    head = CosineHead(features, scale) if cosine_head else LinearHead(features)
    return GradeNet(backbone, head, settings.dropout)


class _Undrawn(TorchFunctionMode):
    """Draws no random numbers: without storage there is nothing to fill, and trying it imports torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


def without_weights(build: Callable[[], AnyNetwork]) -> AnyNetwork:
    """A network on torch's `meta` device: it has shapes and no numbers, and takes no memory."""
    with torch.device("meta"), _Undrawn():
        return build()


def with_weights(build: Callable[[], AnyNetwork], weights: Mapping[str, Tensor]) -> AnyNetwork:
    """A network with given weights, in eval mode, on the CPU; no random ones are drawn first.

    Args:
        build: makes the network.
        weights: name -> tensor, every one that the network has; they become its own.

    Raises:
        RuntimeError: one is missing, unknown, or of another shape or type.
    """
    network = without_weights(build)
    for name, own in network.state_dict().items():
        if name in weights and weights[name].dtype != own.dtype:
            raise RuntimeError(f"{name} is {weights[name].dtype}, not {own.dtype}")
    network.load_state_dict(weights, assign=True)
    return network.eval()


def fold_batchnorm(network: AnyNetwork) -> AnyNetwork:
    """A copy in eval mode, each BatchNorm folded into the convolution before it; the outputs stay the same.

    A BatchNorm that has none before it stays (`densenet121`), and GroupNorm, whose statistics are those of the scan at
    hand.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        children = dict(module.named_children())
        for conv_name, norm_name in FOLDABLE:
            holder, _, last = norm_name.rpartition(".")
            if conv_name not in children or (holder or last) not in children:
                continue
            conv, place = children[conv_name], module.get_submodule(holder)
            norm = getattr(place, last, None)
            if isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(place, last, nn.Identity())
    return folded


def _weigh(feature_map: Tensor, weight: Tensor) -> Tensor:
    return (feature_map * weight[:, None, None, None]).sum(dim=1)  # (B, x, y, z)
