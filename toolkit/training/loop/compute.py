"""Where and in which precision a training computes: chosen, described, and left as it was found."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version

import torch
import torch.utils.deterministic

from toolkit.config import TrainingSettings
from toolkit.errors import RunError, RuntimeUnavailable, SettingsError
from toolkit.training.network.network import GradeNet
from toolkit.training.processes.ranks import ALONE, Ranks

_DTYPES: dict[str, torch.dtype | None] = {"fp16": torch.float16, "bf16": torch.bfloat16, "off": None}
# cuBLAS adds in a fixed order only with a workspace of a fixed size, which it reads from the environment.
_CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Compute:
    """A device, with its index where it is a GPU, and the type that autocast uses; None is float32 throughout."""

    device: torch.device
    amp: torch.dtype | None

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def layout(self) -> torch.memory_format:
        """Channels last on a GPU, where its convolutions are faster."""
        return torch.channels_last_3d if self.on_gpu else torch.contiguous_format

    @property
    def name(self) -> str:
        """Of the device, such as `cpu` or `NVIDIA H100`."""
        return torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"

    def place(self, network: GradeNet) -> GradeNet:
        """The network, moved to the device and its layout."""
        network.to(memory_format=self.layout)  # type: ignore[call-overload]  # missing from torch's stubs
        return network.to(self.device)

    def autocast(self) -> torch.autocast:
        """The precision, as a context; casts are not kept, as a CUDA graph would keep those of its capture."""
        enabled = self.amp is not None
        return torch.autocast(self.device.type, dtype=self.amp, enabled=enabled, cache_enabled=False)


def choose_compute(settings: TrainingSettings, ranks: Ranks = ALONE) -> Compute:
    """The device and precision that the settings ask for.

    Args:
        settings: `device` and what must go with it.
        ranks: each takes the GPU of its number.

    Raises:
        RuntimeUnavailable: a GPU is asked for that is not there.
        SettingsError: the device cannot compute in the precision asked for, or not for several ranks; or there are more
            ranks than batches in an optimiser step.
    """
    wanted = _wanted(settings)
    check_ranks(settings, ranks.size)
    if wanted == "cpu":
        device = torch.device("cpu")
    else:
        index, found = int(wanted.partition(":")[2] or ranks.local), torch.cuda.device_count()
        if index >= found:
            raise RuntimeUnavailable(f"device {wanted} is not there ({found} GPUs found); set training.device to auto.")
        device = torch.device("cuda", index)
    amp = settings.amp
    if amp == "auto":
        amp = "off" if device.type == "cpu" else "fp16"
    if amp == "fp16" and device.type == "cpu":
        raise SettingsError("training.amp = 'fp16' needs a GPU; set it to bf16, off or auto.")
    if amp == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise SettingsError(
            f"training.amp = 'bf16' is not computed by {torch.cuda.get_device_name(device)}; set it to fp16 or auto."
        )
    return Compute(device, _DTYPES[amp])


def _wanted(settings: TrainingSettings) -> str:
    if settings.device != "auto":
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_ranks(settings: TrainingSettings, size: int) -> None:
    """Can so many processes share each optimiser step?

    Raises:
        SettingsError: they cannot, with what to change.
    """
    wanted = _wanted(settings)
    if size == 1:
        return
    if wanted.startswith("cuda:"):
        raise SettingsError(f"training.device = '{wanted}' names one GPU for {size} processes; set it to cuda.")
    if settings.sync_batchnorm:
        if wanted == "cpu":
            raise SettingsError("training.sync_batchnorm needs GPUs; set it to false.")
        if size > settings.batch_size:
            raise SettingsError(
                f"{size} processes cannot share batches of {settings.batch_size} patients; raise"
                " training.batch_size, or use fewer devices."
            )
    elif size > settings.accumulation:
        batches = f"{settings.accumulation} batch{'es' * (settings.accumulation > 1)}"
        raise SettingsError(
            f"an optimiser step has {batches}, too few for {size} processes; set training.accumulation to"
            f" {size}, or use fewer devices."
        )


def compute_notes(compute: Compute, settings: TrainingSettings, ranks: Ranks = ALONE) -> tuple[str, ...]:
    """What was chosen, and what is known to go wrong with it, one sentence each."""
    how = ", deterministic" if settings.deterministic and compute.on_gpu else ""
    notes = [f"Training on {compute.name}, mixed precision {_NAMES[compute.amp]}{how}."]
    if ranks.size > 1:
        batch, parts = settings.batch_size, settings.accumulation
        cut = "every batch is cut into a part for each" if settings.sync_batchnorm else "each takes whole batches"
        notes.append(
            f"{ranks.size} processes share each optimiser step, which stays at {batch * parts} patients (batch {batch}"
            f" x accumulation {parts}): {cut}."
        )
        if not settings.sync_batchnorm and parts % ranks.size:
            notes.append(
                f"{parts} batches cannot be spread evenly over {ranks.size} processes, of which some will wait; set"
                f" training.accumulation to a multiple of {ranks.size}."
            )
    if compute.on_gpu:
        notes += known_faults(str(torch.__version__), _cudnn() or 0, compute.amp)
    return tuple(notes)


def known_faults(torch_version: str, cudnn: int, amp: torch.dtype | None) -> tuple[str, ...]:
    """Faults of library versions that 3-D convolutions on a GPU meet.

    Args:
        torch_version: such as `2.9.1+cu128`.
        cudnn: such as 91002 for 9.10.2.
        amp: the type that autocast uses.

    Source: github.com/pytorch/pytorch issues 166122 and 163539.
    """
    found = []
    if amp is not None and torch_version.startswith("2.9."):
        found.append(
            f"torch {torch_version} computes 3-D convolutions in mixed precision about 4 times slower than 2.8 or 2.10;"
            " another version is worth installing."
        )
    if amp is torch.bfloat16 and 90800 <= cudnn < 91100:
        found.append(
            f"cuDNN {cudnn // 10000}.{cudnn // 100 % 100} can compute 3-D convolutions in bf16 wrongly, without an"
            " error; set training.amp to fp16, or install cuDNN 9.11 or later."
        )
    return tuple(found)


def environment(compute: Compute, ranks: Ranks = ALONE) -> str:
    """Versions and device as JSON; nothing that names the machine or its folders."""
    found = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "monai", "numpy")},
        "cuda": torch.version.cuda,
        "cudnn": _cudnn() if compute.on_gpu else None,
        "device": compute.name,
        "processes": ranks.size if ranks.size > 1 else None,
        "amp": _NAMES[compute.amp],
    }
    return json.dumps({name: value for name, value in found.items() if value is not None}, indent=2) + "\n"


@contextmanager
def reproducible(compute: Compute, deterministic: bool = False) -> Iterator[None]:
    """Torch's global state for a training, put back afterwards.

    On the CPU every operation is deterministic. On a GPU cuDNN takes the fastest algorithm it measures, unless told
    otherwise.

    Args:
        compute: where the training computes.
        deterministic: the same bits on the same GPU each time, at a cost in speed.

    Raises:
        RunError: the GPU's memory did not suffice.
    """
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark, filling = torch.backends.cudnn.benchmark, torch.utils.deterministic
    fill = filling.fill_uninitialized_memory  # type: ignore[attr-defined]  # set by torch as the module is loaded
    card = torch.cuda.device(compute.device) if compute.on_gpu else nullcontext()  # streams and graphs are of this one
    with card, torch.random.fork_rng([compute.device] if compute.on_gpu else []):
        try:
            if compute.on_gpu and deterministic:
                os.environ.setdefault(*_CUBLAS)
            torch.use_deterministic_algorithms(deterministic or not compute.on_gpu)
            # Nothing here reads what was not written, and filling costs 10 % of a step.
            filling.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark = compute.on_gpu and not deterministic
            yield
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"the memory of {compute.name} does not suffice; halve training.batch_size and double"
                " training.accumulation."
            ) from error
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)
            filling.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark = benchmark


def _cudnn() -> int | None:
    return torch.backends.cudnn.version()  # type: ignore[no-untyped-call,no-any-return]
