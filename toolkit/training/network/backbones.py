"""The networks up to their last feature map: MONAI's 3-D ResNets, DenseNet-121, SE-ResNet-50 and EfficientNet-B0."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from toolkit.config import NetworkSettings
from toolkit.environment import without
from toolkit.training.network.pooling import halve, max_pool
from toolkit.training.network.stem import convolve_stem

# MONAI imports all its parts at once, and with them every package of these that is installed, although no network here
# needs one: with transformers and einops there, 4.4 to 5.8 s of CPU in place of 1.2.
_NOT_NEEDED = (
    *("MetricsReloaded", "PIL", "apex", "batchgenerators", "bs4", "clearml", "cucim", "cupy", "cupyx", "cv2", "einops"),
    *(
        "fire",
        "gdown",
        "h5py",
        "huggingface_hub",
        "ignite",
        "itk",
        "jsonschema",
        "kvikio",
        "lmdb",
        "lpips",
        "matplotlib",
    ),
    *("mlflow", "nni", "nrrd", "nvsubquadratic", "onnx", "onnxruntime", "openslide", "optuna", "pandas", "polygraphy"),
    *("psutil", "pyamg", "pydicom", "pynvml", "pywt", "requests", "segment_anything", "skimage", "sklearn"),
    *("squeeze_and_excitation", "tensorboard", "tensorboardX", "tensorrt", "tifffile", "torch_tensorrt", "torchaudio"),
    *("torchio", "torchvision", "transformers", "yaml", "zarr", "scipy.signal", "scipy.sparse"),
    *("monai.auto3dseg", "monai.engines"),
    *(f"monai.apps.{name}" for name in ("auto3dseg", "deepedit", "deepgrow", "detection", "generation", "nuclick")),
    *(f"monai.apps.{name}" for name in ("pathology", "reconstruction", "vista3d")),
)
with without(*_NOT_NEEDED):
    from monai.networks.nets.densenet import DenseNet121
    from monai.networks.nets.efficientnet import EfficientNetBN
    from monai.networks.nets.resnet import ResNet
    from monai.networks.nets.senet import SEResNet50

CHANNELS = 4  # one per modality
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
# BatchNorm as torch has it by default, with the constant of EfficientNet. MONAI's momentum of 0.01 is meant for epochs
# of thousands of batches: after one of 57, half of what the statistics were before would still be in them.
_EFFICIENT_NORM = ("batch", {"eps": 1e-3, "momentum": 0.1})
# A convolution, and the BatchNorm that its output goes to and nothing else.
FOLDABLE = (
    *((f"conv{n}", f"bn{n}") for n in (1, 2, 3)),
    ("0", "1"),  # a ResNet's shortcut
    ("conv0", "norm0"),
    ("conv1", "norm2"),
    ("conv", "adn.N"),
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)


class Backbone(ResNet):  # type: ignore[misc]  # MONAI carries no types
    """MONAI's ResNet."""

    def __init__(self, settings: NetworkSettings) -> None:
        block, layers, shortcut = _PLANS[settings.depth]
        super().__init__(
            block,
            layers,
            PLANES,
            n_input_channels=CHANNELS,
            conv1_t_stride=settings.stem_stride,
            shortcut_type=shortcut,
            bias_downsample=False,  # MedicalNet's shortcut convolutions have none
            feed_forward=False,
        )
        self.width = PLANES[-1] * _EXPANSION[block]

    def forward(self, scan: Tensor) -> Tensor:
        """(B, 4, X, Y, Z) -> (B, F, x, y, z), 1/32 of each axis with stem stride 2, rounded up."""
        x = self.act(self.bn1(convolve_stem(self.conv1, scan)))  # (B, 64, X/2, Y/2, Z/2)
        x = max_pool(self.maxpool, x)  # (B, 64, X/4, Y/4, Z/4)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]

    def _downsample_basic_block(self, x: Tensor, planes: int, stride: int, spatial_dims: int = 3) -> Tensor:
        # Shortcut A: subsample, then zero channels. MONAI's own takes `.data`, which cuts the gradient.
        x = x[:, :, ::stride, ::stride, ::stride]
        return functional.pad(x, (0, 0) * spatial_dims + (0, planes - x.shape[1]))


class Halving(nn.Module):
    """Average pooling, 2 x 2 x 2 with stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, C, X/2, Y/2, Z/2), rounded down."""
        return halve(x)


class DenseBackbone(DenseNet121):  # type: ignore[misc]
    """MONAI's DenseNet-121 (Huang 2017)."""

    width = 1024

    def __init__(self) -> None:
        super().__init__(spatial_dims=3, in_channels=CHANNELS, out_channels=1)
        del self.class_layers
        for transition in (self.features.transition1, self.features.transition2, self.features.transition3):
            transition.pool = Halving()

    def forward(self, scan: Tensor) -> Tensor:
        """(B, 4, X, Y, Z) -> (B, 1024, x, y, z), 1/32 of each axis."""
        first, norm, act, pooling, *rest = self.features.children()
        x = max_pool(pooling, act(norm(convolve_stem(first, scan))))  # (B, 64, X/4, Y/4, Z/4)
        for part in rest:
            x = part(x)
        return functional.relu(x)


class SqueezeBackbone(SEResNet50):  # type: ignore[misc]
    """MONAI's SE-ResNet-50 (Hu 2018)."""

    width = 2048

    def __init__(self) -> None:
        super().__init__(spatial_dims=3, in_channels=CHANNELS, num_classes=1)
        del self.adaptive_avg_pool, self.dropout, self.last_linear

    def forward(self, scan: Tensor) -> Tensor:
        """(B, 4, X, Y, Z) -> (B, 2048, x, y, z), 1/32 of each axis, rounded up after the pooling."""
        first = self.layer0
        x = max_pool(first.pool, first.relu1(first.bn1(convolve_stem(first.conv1, scan))))  # (B, 64, X/4, Y/4, Z/4)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]


class EfficientBackbone(EfficientNetBN):  # type: ignore[misc]
    """MONAI's EfficientNet-B0 (Tan & Le 2019); its paddings are those for axes that 32 divides, whatever the grid."""

    width = 1280

    def __init__(self) -> None:
        super().__init__(
            "efficientnet-b0",
            pretrained=False,
            spatial_dims=3,
            in_channels=CHANNELS,
            num_classes=1,
            norm=_EFFICIENT_NORM,
        )
        del self._avg_pooling, self._dropout, self._fc
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module.groups > 1:
                # MONAI counts all channels among the outputs of a weight; of a convolution by channels it has one.
                module.weight.data *= math.sqrt(module.groups)

    def forward(self, scan: Tensor) -> Tensor:
        """(B, 4, X, Y, Z) -> (B, 1280, x, y, z), 1/32 of each axis."""
        x = self._swish(self._bn0(self._conv_stem(self._conv_stem_padding(scan))))  # (B, 32, X/2, Y/2, Z/2)
        x = self._conv_head(self._conv_head_padding(self._blocks(x)))
        return self._swish(self._bn1(x))  # type: ignore[no-any-return]


AnyBackbone = Backbone | DenseBackbone | SqueezeBackbone | EfficientBackbone
_OTHERS: dict[str, type[DenseBackbone | SqueezeBackbone | EfficientBackbone]] = {
    "densenet121": DenseBackbone,
    "seresnet50": SqueezeBackbone,
    "efficientnet-b0": EfficientBackbone,
}


def build_backbone(settings: NetworkSettings) -> AnyBackbone:
    """A backbone with fresh weights, drawn from torch's global generator; `width` is the number of its features.

    Args:
        settings: architecture, depth, stem stride and normalisation.
    """
    backbone: AnyBackbone = Backbone(settings) if settings.arch == "resnet" else _OTHERS[settings.arch]()
    if settings.norm == "group":
        _use_group_norm(backbone)
    return backbone


def _use_group_norm(module: nn.Module) -> None:
    """In every block: MONAI's own option reaches the stem only."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            groups = math.gcd(_GROUPS, child.num_features)
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _use_group_norm(child)
