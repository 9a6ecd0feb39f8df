"""PyTorch: the reference that the other runtimes are compared with. The only runtime that imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from deploy.model.folder import WEIGHTS, Draft, Precision
from deploy.model.manifest import NetworkRecord
from deploy.runtime import Array, Choice, RuntimeOutputs, check_scans, checked
from toolkit.config import NetworkSettings
from toolkit.errors import ModelError, OutOfMemory, RuntimeUnavailable
from toolkit.files import first_line
from toolkit.training.network.ensemble import Ensemble, members_of
from toolkit.training.network.network import GradeNet, build_network, fold_batchnorm, with_weights


@dataclass
class TorchRuntime:
    """See `deploy.runtime.Runtime`."""

    model: Draft
    device: str
    precision: Precision
    chosen: str
    network: GradeNet | Ensemble
    name: str = "torch"

    @property
    def engine_hash(self) -> str:
        """See `deploy.runtime.Runtime`."""
        return self.model.manifest.files[WEIGHTS]

    def infer(self, scans: Array) -> RuntimeOutputs:
        """See `deploy.runtime.Runtime.infer`."""
        check_scans(scans, self.model.manifest)
        kind = torch.float16 if self.precision == "fp16" else torch.float32
        batch = torch.from_numpy(scans).to(self.device, kind, memory_format=torch.channels_last_3d)  # (B, 4, X, Y, Z)
        try:
            # Without TF32, fp32 on a GPU is as exact as on a CPU.
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                outputs = self.network(batch)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(
                f"the memory of {self.device} does not suffice for a batch of {len(scans)}; take a smaller one."
            ) from error
        return checked(RuntimeOutputs(*(x.cpu().numpy() for x in outputs)), len(scans), self.model.manifest)


def open_torch(model: Draft, choice: Choice) -> TorchRuntime:
    """Open a model in PyTorch; as `deploy.runtimes.open.open_runtime`."""
    device = _device(choice.device)
    on_gpu = device != "cpu"
    precision: Precision = ("fp16" if on_gpu else "fp32") if choice.precision == "auto" else choice.precision
    if precision == "fp16" and not on_gpu:
        raise RuntimeUnavailable("torch computes in fp16 on a GPU only; choose the precision fp32.")
    if choice.threads:
        torch.set_num_threads(choice.threads)
    network = load_folded(model.read(WEIGHTS), model.manifest.network, str(model.folder / WEIGHTS)).to(device)
    if precision == "fp16":
        for member in members_of(network):
            member.backbone.half()
    reason = "as asked for" if choice.device != "auto" else "a GPU is there" if on_gpu else "torch finds no GPU"
    return TorchRuntime(model, device, precision, f"PyTorch on {device} in {precision}: {reason}.", network)


def _device(wanted: str) -> str:
    found = torch.cuda.device_count()
    if wanted == "cpu" or (wanted == "auto" and not found):
        return "cpu"
    index = 0 if wanted == "auto" else int(wanted.partition(":")[2] or 0)
    if index >= found:
        raise RuntimeUnavailable(f"device {wanted} was asked for, but torch finds {found} GPUs; choose the device cpu.")
    return f"cuda:{index}"


def recorded_network(record: NetworkRecord) -> GradeNet | Ensemble:
    """The network that a manifest describes, its weights still random."""
    settings = NetworkSettings(arch=record.arch, depth=record.depth, stem_stride=record.stem_stride, norm=record.norm)
    members = [build_network(settings, record.cosine_head) for _ in range(record.members)]
    return Ensemble(members) if len(members) > 1 else members[0]


def load_folded(content: bytes, record: NetworkRecord, name: str) -> GradeNet | Ensemble:
    """The network of a model's weights, BatchNorm folded, on the CPU, channels last.

    Args:
        content: of `weights.safetensors`.
        record: how the network is built.
        name: of the file, for a sentence.

    Raises:
        ModelError: the weights are not those of such a network.
    """
    try:
        network = with_weights(lambda: recorded_network(record), load(content))
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{name} does not fit the manifest's network: {first_line(error)}; export again.") from error
    return fold_batchnorm(network).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]
