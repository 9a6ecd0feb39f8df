"""What this machine can run: versions, GPUs, runtimes and why not. Nothing heavy is imported."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from deploy.tensorrt.flavours import INSTALL, RTX_CAPABILITIES, importable
from toolkit.errors import RuntimeUnavailable
from toolkit.machine import cores, versions

PACKAGES = (
    *("glioma-grade", "numpy", "nibabel", "imagecodecs", "onnxruntime", "onnxruntime-gpu"),
    *("tensorrt", "tensorrt-rtx-cu13-bindings", "cuda-bindings", "torch", "monai"),
)
_QUERY = ("--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as its driver names it."""

    name: str
    memory_gib: float
    driver: str
    compute_capability: str


@dataclass(frozen=True)
class RuntimeState:
    """Whether a runtime can be used here.

    Attributes:
        name: as `--runtime` takes it.
        devices: where it would run; empty when it cannot.
        reason: why it cannot, or cannot use the GPU; empty when it can.
    """

    name: str
    devices: tuple[str, ...]
    reason: str


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that matter; None for those that are not installed."""
    found = versions(PACKAGES)
    return {name: found.get(name) for name in PACKAGES}


def system() -> dict[str, str]:
    """Interpreter, operating system, usable cores."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(cores()),
    }


def user_cache(kind: str) -> Path:
    """Where this user's files of a kind are kept, such as engines of models that cannot be written to.

    Raises:
        RuntimeUnavailable: the user has no home folder, as a number without a name in a container has none.
    """
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "grade" / kind
    try:
        return Path.home() / ".cache" / "grade" / kind
    except RuntimeError:
        raise RuntimeUnavailable(
            f"this user has no home folder in which {kind} could be kept; set HOME, or XDG_CACHE_HOME, to a folder."
        ) from None


def gpu_shown() -> bool:
    """Whether the system shows an NVIDIA GPU; asked at once, before anything of CUDA is loaded."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()  # the latter in WSL


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that the driver shows; none without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        answer = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if answer.returncode:
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines()]
    return tuple(Gpu(row[0], round(float(row[1]) / 1024, 1), row[2], row[3]) for row in rows if len(row) == 4)


def runtimes(found: tuple[Gpu, ...]) -> tuple[RuntimeState, ...]:
    """Each runtime, whether it can be used, and why not.

    Args:
        found: from `gpus`.
    """
    return (_onnx(found), _tensorrt(found), _torch(found))


def _onnx(found: tuple[Gpu, ...]) -> RuntimeState:
    spec = find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        return RuntimeState("onnx", (), "onnxruntime is not installed; pip install '.[cpu]' or '.[gpu]'")
    if (Path(spec.submodule_search_locations[0]) / "capi" / "libonnxruntime_providers_cuda.so").exists():
        if found:
            return RuntimeState("onnx", ("cpu", "cuda"), "")
        return RuntimeState("onnx", ("cpu",), "the CUDA provider is installed, but the driver shows no GPU")
    both = len(versions(("onnxruntime", "onnxruntime-gpu"))) == 2
    clash = "; onnxruntime hides onnxruntime-gpu: uninstall both, then install onnxruntime-gpu" if both else ""
    return RuntimeState("onnx", ("cpu",), f"no CUDA provider in this onnxruntime{clash}")


def _tensorrt(found: tuple[Gpu, ...]) -> RuntimeState:
    if not importable("tensorrt") and not importable("rtx"):
        return RuntimeState("tensorrt", (), f"not installed; {INSTALL}")
    if not found:
        where = "; engines for RTX cards can be built all the same" if importable("rtx") else ""
        return RuntimeState("tensorrt", (), f"the driver shows no GPU{where}")
    if not versions(("cuda-bindings",)):
        return RuntimeState("tensorrt", (), "cuda-bindings is not installed; pip install -c constraints.txt '.[gpu]'")
    strange = [gpu for gpu in found if gpu.compute_capability not in RTX_CAPABILITIES]
    if strange and not importable("tensorrt"):
        return RuntimeState("tensorrt", (), f"TensorRT for RTX does not run on {strange[0].name}; install TensorRT")
    return RuntimeState("tensorrt", ("cuda",), "")


def _torch(found: tuple[Gpu, ...]) -> RuntimeState:
    installed = versions(("torch",)).get("torch")
    if installed is None:
        return RuntimeState("torch", (), "torch is not installed")
    if "+cpu" in installed:
        return RuntimeState("torch", ("cpu",), "this torch is a CPU build")
    return RuntimeState("torch", ("cpu", "cuda") if found else ("cpu",), "" if found else "the driver shows no GPU")
