"""The network: MONAI's 3-D ResNet, a head, and three outputs; MedicalNet weights; BatchNorm folded for export."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from toolkit.config import NetworkSettings
from toolkit.environment import without
from toolkit.training.network.pooling import pool
from toolkit.training.network.stem import block_weight, convolve_blocks, takes_blocks

# MONAI imports all its parts at once, and with them packages that no network needs: twelve seconds of CPU.
_NOT_NEEDED = ("ignite", "jsonschema", "matplotlib", "mlflow", "pandas", "pydicom", "skimage", "sklearn", "tensorboard")
with without(*_NOT_NEEDED, "scipy.signal", "scipy.sparse"):
    from monai.networks.nets.resnet import ResNet

CHANNELS = 4  # one per modality
GRADES = 2  # LGG, HGG
# Depth -> block, blocks per stage, shortcut as in MedicalNet's files.
_PLANS: dict[int, tuple[str, list[int], str]] = {
    10: ("basic", [1, 1, 1, 1], "B"),
    18: ("basic", [2, 2, 2, 2], "A"),
    34: ("basic", [3, 4, 6, 3], "A"),
    50: ("bottleneck", [3, 4, 6, 3], "B"),
}
PLANES = [64, 128, 256, 512]  # channels of the four stages, before a bottleneck's expansion
_EXPANSION = {"basic": 1, "bottleneck": 4}
_GROUPS = 32  # of channels in a GroupNorm (Wu & He 2018)


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


class Backbone(ResNet):  # type: ignore[misc]  # MONAI carries no types
    """MONAI's ResNet up to its last feature map."""

    def forward(self, scan: Tensor) -> Tensor:
        """(B, 4, X, Y, Z) -> (B, F, x, y, z), 1/32 of each axis with stem stride 2, rounded up."""
        x = self.act(self.bn1(self._stem(scan)))  # (B, 64, X/2, Y/2, Z/2)
        fixed = x.is_cuda and x.requires_grad and torch.are_deterministic_algorithms_enabled()
        x = pool(x) if fixed else self.maxpool(x)  # (B, 64, X/4, Y/4, Z/4)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]

    def _stem(self, scan: Tensor) -> Tensor:
        if scan.is_cuda and takes_blocks(self.conv1):
            return convolve_blocks(scan, block_weight(self.conv1.weight), self.conv1.bias)
        return self.conv1(scan)  # type: ignore[no-any-return]

    def _downsample_basic_block(self, x: Tensor, planes: int, stride: int, spatial_dims: int = 3) -> Tensor:
        # Shortcut A: subsample, then zero channels. MONAI's own takes `.data`, which cuts the gradient.
        x = x[:, :, ::stride, ::stride, ::stride]
        return functional.pad(x, (0, 0) * spatial_dims + (0, planes - x.shape[1]))


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

    def __init__(self, backbone: Backbone, head: LinearHead | CosineHead, dropout: float) -> None:
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
        settings: depth, stem stride, normalisation and dropout; `pretrained` is left to `pretrained.load_pretrained`.
        cosine_head: the head that LDAM needs, in place of the linear one.
        scale: of the cosines, LDAM's s; a state dict brings its own.
    """
    block, layers, shortcut = _PLANS[settings.depth]
    backbone = Backbone(
        block,
        layers,
        PLANES,
        n_input_channels=CHANNELS,
        conv1_t_stride=settings.stem_stride,
        shortcut_type=shortcut,
        bias_downsample=False,  # MedicalNet's shortcut convolutions have none
        feed_forward=False,
    )
    if settings.norm == "group":
        _use_group_norm(backbone)
    features = PLANES[-1] * _EXPANSION[block]
    head = CosineHead(features, scale) if cosine_head else LinearHead(features)
    return GradeNet(backbone, head, settings.dropout)


class _Undrawn(TorchFunctionMode):
    """Draws no random numbers: without storage there is nothing to fill, and trying it imports torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


def with_weights(build: Callable[[], AnyNetwork], weights: Mapping[str, Tensor]) -> AnyNetwork:
    """A network with given weights, in eval mode, on the CPU; no random ones are drawn first.

    Args:
        build: makes the network.
        weights: name -> tensor, every one that the network has; they become its own.

    Raises:
        RuntimeError: one is missing, unknown, or of another shape or type.
    """
    with torch.device("meta"), _Undrawn():
        network = build()
    for name, own in network.state_dict().items():
        if name in weights and weights[name].dtype != own.dtype:
            raise RuntimeError(f"{name} is {weights[name].dtype}, not {own.dtype}")
    network.load_state_dict(weights, assign=True)
    return network.eval()


def fold_batchnorm(network: AnyNetwork) -> AnyNetwork:
    """A copy in eval mode, each BatchNorm folded into the convolution before it; the outputs stay the same.

    GroupNorm stays: its statistics are those of the scan at hand.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        children = dict(module.named_children())
        for conv_name, norm_name in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")):
            conv, norm = children.get(conv_name), children.get(norm_name)
            if isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return folded


def _use_group_norm(module: nn.Module) -> None:
    """In every block: MONAI's own option reaches the stem only."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            groups = math.gcd(_GROUPS, child.num_features)
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _use_group_norm(child)


def _weigh(feature_map: Tensor, weight: Tensor) -> Tensor:
    return (feature_map * weight[:, None, None, None]).sum(dim=1)  # (B, x, y, z)
