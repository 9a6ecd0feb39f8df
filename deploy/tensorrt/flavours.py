"""The two TensorRTs and what each can build for: `tensorrt`, for any NVIDIA card, and `rtx`, TensorRT for RTX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, get_args

from toolkit.errors import RuntimeUnavailable

Flavour = Literal["tensorrt", "rtx"]

# TensorRT for RTX comes as `tensorrt_rtx`, which NVIDIA's own index serves, or as the bindings alone, which PyPI has.
MODULES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
TITLES: dict[Flavour, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}
# RTX 30, 40 and 50. Source: "CUDA GPU Compute Capability", developer.nvidia.com/cuda-gpus.
RTX_CARDS = ("8.6", "8.9", "12.0")
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # TensorRT for RTX 1.7; it is asked when it builds
INSTALL = (
    "pip install -c constraints.txt '.[rtx]' for RTX cards, or for any card, from NVIDIA's index,"
    " pip install -c constraints.txt --extra-index-url https://pypi.nvidia.com '.[tensorrt]'"
)


class Card(NamedTuple):
    """A GPU as CUDA names it; the compute capability such as `8.9`."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Target:
    """What an engine is built by and for.

    Attributes:
        flavour: `tensorrt` or `rtx`.
        version: of that library; an engine runs under no other.
        gpu: name of the card; None for `rtx`, whose engines fit every card of their compute capabilities.
        compute_capabilities: such as `8.9`, ascending.
        api: the module, `tensorrt` or `tensorrt_rtx`.
    """

    flavour: Flavour
    version: str
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    api: Any


def importable(flavour: Flavour) -> bool:
    """Whether a flavour's package is installed; nothing is imported."""
    return any(_installed(name) for name in MODULES[flavour])


def choose_target(asked: str | None, capabilities: Sequence[str], card: Card | None) -> Target:
    """What to build: `tensorrt` where it is installed and a GPU is there, else `rtx`.

    Args:
        asked: `tensorrt` or `rtx`; None leaves the choice.
        capabilities: compute capabilities such as `8.9`, for which `rtx` builds without a GPU; empty takes the card's,
            or without one those of the RTX cards of the last three generations.
        card: of this machine, on which the engine will run; None: there is none.

    Raises:
        RuntimeUnavailable: not installed, no GPU for `tensorrt`, or a compute capability that `rtx` does not know.
    """
    if asked is not None and asked not in get_args(Flavour):
        raise RuntimeUnavailable(f"TensorRT flavour '{asked}' is unknown; choose tensorrt or rtx.")
    if asked == "tensorrt" or (asked is None and not capabilities and card and importable("tensorrt")):
        return _tensorrt(capabilities, card)
    return _rtx(capabilities, card)


def usable_targets(card: Card) -> tuple[Target, ...]:
    """What can run on a card, best first.

    Raises:
        RuntimeUnavailable: nothing can; the reason is that of the last one tried.
    """
    found: list[Target] = []
    reason = ""
    for flavour in get_args(Flavour):
        try:
            found.append(choose_target(flavour, (), card))
        except RuntimeUnavailable as error:
            reason = str(error)
    if not found:
        raise RuntimeUnavailable(reason)
    return tuple(found)


def _tensorrt(capabilities: Sequence[str], card: Card | None) -> Target:
    if capabilities:
        raise RuntimeUnavailable(
            f"compute capability {capabilities[0]} was named, but TensorRT builds for the card in this machine;"
            " name none, or choose the flavour rtx."
        )
    api = _load("tensorrt")
    if card is None:
        raise RuntimeUnavailable(
            "TensorRT builds on the GPU that the engine will run on, and there is none here; export on the GPU box, or"
            " choose the flavour rtx, which builds for RTX cards anywhere."
        )
    return Target("tensorrt", api.__version__, card.name, (card.compute_capability,), api)


def _rtx(capabilities: Sequence[str], card: Card | None) -> Target:
    api = _load("rtx")
    known = _known_capabilities(api)
    wanted = set(capabilities) or ({card.compute_capability} if card else set(RTX_CARDS))
    for unknown in sorted(wanted - set(known)):
        where = "was named" if capabilities or card is None else f"is that of {card.name}"
        raise RuntimeUnavailable(
            f"compute capability {unknown} {where}, but TensorRT for RTX {api.__version__} builds for"
            f" {', '.join(known)} only; on other cards use TensorRT (--trt-flavour tensorrt), or name the target card's"
            " capability with --compute-capability."
        )
    return Target("rtx", api.__version__, None, tuple(c for c in known if c in wanted), api)


def _known_capabilities(api: Any) -> tuple[str, ...]:
    """`SM86`, `SM120` -> `8.6`, `12.0`, ascending."""
    numbers = sorted(int(name[2:]) for name in dir(api.ComputeCapability) if name.startswith("SM"))
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)


def capability_member(api: Any, capability: str) -> Any:
    """`8.6` -> `ComputeCapability.SM86`."""
    return getattr(api.ComputeCapability, f"SM{capability.replace('.', '')}")


def _load(flavour: Flavour) -> Any:
    """Import a flavour, or say how to get one."""
    title = TITLES[flavour]
    for name in MODULES[flavour]:
        if not _installed(name):
            continue
        try:
            return import_module(name)
        except (ImportError, OSError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise RuntimeUnavailable(
                f"{title} is installed but cannot be loaded: {reason}; install it again: {INSTALL}."
            ) from error
    raise RuntimeUnavailable(f"{title} is not installed; {INSTALL}.")


def _installed(name: str) -> bool:
    spec = find_spec(name)
    return (
        spec is not None and spec.origin is not None
    )  # a bare folder of that name, such as one of type stubs, is none
