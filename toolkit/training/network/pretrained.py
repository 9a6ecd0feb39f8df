"""MedicalNet's weights in our backbone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from toolkit.errors import RunError
from toolkit.training.network.backbones import CHANNELS
from toolkit.training.network.checkpoint import read_foreign
from toolkit.training.network.network import GradeNet

_MATCH_NEEDED = 0.95  # a share below means: another depth, or no MedicalNet file
_COUNTER = "num_batches_tracked"  # BatchNorm's counter: no weight, and absent from files of torch 0.4
_CLASSIFIERS = ("fc.", "conv_seg.")


class PretrainedReport(NamedTuple):
    """Names of the backbone's tensors, and of the file's, after `load_pretrained`."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def load_pretrained(network: GradeNet, file: Path) -> PretrainedReport:
    """Load a MedicalNet file into the backbone; the file's classifier is ignored.

    Args:
        network: changed in place, unless an error is raised.
        file: `{"state_dict": {"module.conv1.weight": ...}}`; a first convolution of one input channel is spread over
            the four modalities, each a quarter, so that four equal channels answer as one did.

    Raises:
        RunError: no such file, no state dict, or fewer than 95 % of the backbone's tensors match.
    """
    given = _read_state(file)
    own = {name: x for name, x in network.backbone.state_dict().items() if not name.endswith(_COUNTER)}
    stem = given.get("conv1.weight")
    if stem is not None and stem.ndim == 5 and stem.shape[1] == 1:
        given["conv1.weight"] = stem.repeat(1, CHANNELS, 1, 1, 1) / CHANNELS  # (64, 4, 7, 7, 7)
    matched = tuple(name for name in own if name in given and given[name].shape == own[name].shape)
    report = PretrainedReport(
        matched=matched,
        missing=tuple(name for name in own if name not in given),
        unexpected=tuple(name for name in given if name not in own),
        mismatched=tuple(name for name in own if name in given and given[name].shape != own[name].shape),
    )
    if len(matched) < _MATCH_NEEDED * len(own):
        raise RunError(
            f"{file} matches {len(matched)} of the backbone's {len(own)} tensors"
            f" ({_count('missing', report.missing)}; {_count('of another shape', report.mismatched)};"
            f" {_count('unexpected', report.unexpected)}); take the MedicalNet file of the network's depth."
        )
    network.backbone.load_state_dict({name: given[name] for name in matched}, strict=False)
    return report


def _read_state(file: Path) -> dict[str, Tensor]:
    content = read_foreign(file, "file of pretrained weights")
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise RunError(f"{file} holds no state_dict of tensors; take a MedicalNet file.")
    names = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    return {name: x for name, x in names.items() if not name.startswith(_CLASSIFIERS) and not name.endswith(_COUNTER)}


def _count(what: str, names: tuple[str, ...]) -> str:
    first = ", ".join(names[:3])
    return f"{len(names)} {what}: {first}" if names else f"0 {what}"
