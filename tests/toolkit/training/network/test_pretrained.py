from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor

from toolkit.config import NetworkSettings
from toolkit.errors import RunError
from toolkit.training.network import backbones
from toolkit.training.network.network import GradeNet, build_network
from toolkit.training.network.pretrained import load_pretrained

pytestmark = pytest.mark.usefixtures("narrow")


def small(depth: int = 10) -> GradeNet:
    torch.manual_seed(0)
    return build_network(NetworkSettings(depth=depth), False)  # type: ignore[arg-type]


def medicalnet_file(path: Path, change: dict[str, Tensor | None] | None = None, depth: int = 10) -> dict[str, Tensor]:
    """As MedicalNet writes it: a prefix, one input channel, another classifier."""
    torch.manual_seed(5)
    source = ResNet(
        "basic" if depth < 50 else "bottleneck",
        {10: [1, 1, 1, 1], 18: [2, 2, 2, 2]}[depth],
        backbones.PLANES,
        n_input_channels=1,
        conv1_t_stride=2,
        shortcut_type="B" if depth == 10 else "A",
        bias_downsample=False,
        feed_forward=False,
    )
    state = {**source.state_dict(), "fc.weight": torch.zeros(400, 32)}
    for name, value in (change or {}).items():
        if value is None:
            del state[name]
        else:
            state[name] = value
    torch.save({"state_dict": {f"module.{name}": x for name, x in state.items()}}, path)
    return state


def test_pretrained_spreads_one_channel_over_four(tmp_path: Path) -> None:
    state = medicalnet_file(tmp_path / "m.pth")
    network = small()
    report = load_pretrained(network, tmp_path / "m.pth")
    weight = network.backbone.conv1.weight
    torch.testing.assert_close(weight.sum(dim=1, keepdim=True), state["conv1.weight"])
    assert torch.equal(weight[:, 0], weight[:, 3])
    assert torch.equal(network.backbone.layer4[0].bn2.weight, state["layer4.0.bn2.weight"])
    tensors = [name for name in network.backbone.state_dict() if not name.endswith("num_batches_tracked")]
    assert report.matched == tuple(tensors)
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


def test_pretrained_names_what_does_not_fit(tmp_path: Path) -> None:
    change = {"layer1.0.conv2.weight": None, "bn1.bias": torch.zeros(3), "extra.weight": torch.zeros(1)}
    medicalnet_file(tmp_path / "m.pth", change)
    network = small()
    before = network.backbone.layer1[0].conv2.weight.clone()
    report = load_pretrained(network, tmp_path / "m.pth")
    assert report.missing == ("layer1.0.conv2.weight",)
    assert report.mismatched == ("bn1.bias",)
    assert report.unexpected == ("extra.weight",)
    assert torch.equal(network.backbone.layer1[0].conv2.weight, before)


def test_pretrained_of_another_depth_is_refused(tmp_path: Path) -> None:
    medicalnet_file(tmp_path / "m.pth")
    network = small(50)
    before = network.backbone.conv1.weight.clone()
    with pytest.raises(
        RunError, match=r"matches \d+ of the backbone's 265 tensors .*missing: layer1.*of the network's"
    ):
        load_pretrained(network, tmp_path / "m.pth")
    assert torch.equal(network.backbone.conv1.weight, before)


def test_pretrained_of_old_torch_without_counters(tmp_path: Path) -> None:
    names = [name for name in small().backbone.state_dict() if name.endswith("num_batches_tracked")]
    medicalnet_file(tmp_path / "m.pth", dict.fromkeys(names))
    assert load_pretrained(small(), tmp_path / "m.pth").missing == ()


def test_pretrained_shortcut_a(tmp_path: Path) -> None:
    medicalnet_file(tmp_path / "m.pth", depth=18)
    report = load_pretrained(small(18), tmp_path / "m.pth")
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


@pytest.mark.parametrize(
    "content, sentence",
    [(None, "there is no file"), (b"not a checkpoint", "cannot be read"), (b"", "cannot be read")],
)
def test_unreadable_pretrained(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    file = tmp_path / "m.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RunError, match=sentence):
        load_pretrained(small(), file)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": [1]}, {"state_dict": {"module.a": 3}}])
def test_pretrained_without_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(RunError, match="holds no state_dict"):
        load_pretrained(small(), tmp_path / "m.pth")
