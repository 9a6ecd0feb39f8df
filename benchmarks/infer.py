"""Inference on an NVIDIA GPU: an exported model on ONNX Runtime against the same network in PyTorch.

    python -m benchmarks.infer MODEL [PATIENT_FOLDER ...]

`card`: scans are on the GPU already, in the type and layout that each likes best, and the answers stay there. `host`:
scans come from the host's memory and the answers return to it, as in `grade predict`. Both are wall time until the GPU
is done, medians, after a warm-up in which algorithms are searched and graphs compiled. The ratio is to `torch AMP`: the
network as it was trained, under autocast to fp16, channels last, which is what a careful script runs. `|dp|` is the
largest difference of the probability from ONNX Runtime in fp32 on the CPU, over the patients, or over the model's
self-test where none is named. The last row is what ONNX Runtime does when its search is left at DEFAULT.

Goals: `onnx fp16` on the card at least 2.5 times as fast as `torch AMP` on single scans, and 1.5 times in batches of 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load

from benchmarks.common import arguments, report
from deploy.model.folder import WEIGHTS, Model, open_model
from deploy.runtime import Array, Choice, RuntimeOutputs
from deploy.runtimes.onnx import CUDA, INPUT, OnnxRuntime, open_onnx
from deploy.runtimes.open import open_runtime
from deploy.runtimes.torch import open_torch, recorded_network
from deploy.selftest import load_selftest, probability
from toolkit.data.patients import find_patients
from toolkit.data.scan import read_scan
from toolkit.errors import GradeError

WARM_UP, RUNS = 8, 50
COLUMNS = ("runtime", "batch", "card ms", "AMP / card", "host ms", "AMP / host", "largest |dp|")


class Peer(NamedTuple):
    """One way to answer.

    Attributes:
        name: in the table.
        card: float32 (B, 4, X, Y, Z) on the GPU -> a function that answers it, and waits for the GPU.
        host: the same on the host -> outputs on the host.
    """

    name: str
    card: Callable[[torch.Tensor], Callable[[], object]]
    host: Callable[[Array], RuntimeOutputs]


def torch_peer(name: str, network: Any, dtype: torch.dtype, amp: bool = False) -> Peer:
    """A network on the GPU that takes scans of this type, channels last."""

    def prepared(scans: torch.Tensor) -> torch.Tensor:
        return scans.to("cuda", dtype, memory_format=torch.channels_last_3d)

    def forward(scans: torch.Tensor) -> Any:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=amp):
            return network(scans)

    def card(scans: torch.Tensor) -> Callable[[], object]:
        ready = prepared(scans)

        def answer() -> None:
            forward(ready)
            torch.cuda.synchronize()

        return answer

    def host(scans: Array) -> RuntimeOutputs:
        return RuntimeOutputs(*(x.cpu().numpy() for x in forward(prepared(torch.from_numpy(scans)))))

    return Peer(name, card, host)


def onnx_peer(name: str, runtime: OnnxRuntime) -> Peer:
    """The runtime of `grade predict`; on the card, its session bound to memory there."""

    def card(scans: torch.Tensor) -> Callable[[], object]:
        binding = runtime.session.io_binding()
        binding.bind_input(INPUT, "cuda", 0, np.float32, tuple(scans.shape), scans.data_ptr())
        for output in RuntimeOutputs._fields:
            binding.bind_output(output, "cuda", 0)
        return lambda: runtime.session.run_with_iobinding(binding)  # which waits for the GPU

    return Peer(name, card, runtime.infer)


def trained(model: Model) -> Any:
    """The network on the GPU as training left it: float32, BatchNorm not folded."""
    network: Any = recorded_network(model.manifest.network)
    network.load_state_dict(load(model.read(WEIGHTS)))
    return network.eval().to("cuda", memory_format=torch.channels_last_3d)


def torch_peers(model: Model, compiled: str) -> list[Peer]:
    """PyTorch: mixed precision, the reference; float32; half precision with BatchNorm folded, plain and compiled."""
    network = trained(model)
    half = open_torch(model, Choice("torch", "cuda", "fp16")).network
    found = [
        torch_peer("torch AMP", network, torch.float32, amp=True),
        torch_peer("torch fp32", network, torch.float32),
        torch_peer("torch fp16, folded", half, torch.float16),
    ]
    if compiled != "off":
        fast = torch.compile(half, mode=compiled, dynamic=False)
        found.append(torch_peer(f"torch.compile fp16, folded, {compiled}", fast, torch.float16))
    return found


def onnx_peers(model: Model) -> list[Peer]:
    """ONNX Runtime in both precisions, and in fp16 with the search that it defaults to.

    Raises:
        RuntimeUnavailable: no CUDA provider.
    """
    half, full = (open_onnx(model, Choice("onnx", "cuda:0", precision)) for precision in ("fp16", "fp32"))
    options = {"device_id": "0", "cudnn_conv_algo_search": "DEFAULT"}
    left_alone = onnxruntime.InferenceSession(model.onnx("fp16"), providers=[(CUDA, options)])
    return [
        onnx_peer("onnx fp16", half),
        onnx_peer("onnx fp32", full),
        onnx_peer("onnx fp16, search DEFAULT", replace(half, session=left_alone)),
    ]


def milliseconds(function: Callable[[], object]) -> float:
    """Median wall time."""
    for _ in range(WARM_UP):
        function()
    found = []
    for _ in range(RUNS):
        start = perf_counter()
        function()
        found.append(perf_counter() - start)
    return 1000 * float(np.median(found))


def difference(model: Model, peer: Peer, batches: Sequence[Array], wanted: Sequence[Any]) -> float:
    """Largest difference of the probability."""
    calibration = model.manifest.calibration
    found = [probability(peer.host(scans), calibration) for scans in batches]
    return float(np.abs(np.array(found) - np.array(wanted)).max())


def rows(model: Model, peers: Sequence[Peer], scans: Sequence[Array], batch: int) -> list[tuple[Any, ...]]:
    """One row for each peer, ms a volume; the first peer is the one that the others are compared with."""
    starts = range(0, len(scans), batch)
    batches = [np.stack([scans[(start + k) % len(scans)] for k in range(batch)]) for start in starts]
    exact = open_runtime(model, Choice("onnx", "cpu", "fp32"))
    wanted = [probability(exact.infer(scans), model.manifest.calibration) for scans in batches]
    on_card = torch.from_numpy(batches[0]).cuda()  # (B, 4, X, Y, Z)
    found: list[tuple[Any, ...]] = []
    for peer in peers:
        card = milliseconds(peer.card(on_card)) / batch
        host = milliseconds(lambda peer=peer: peer.host(batches[0])) / batch  # type: ignore[misc]
        amp = found[0] if found else ("", 0, card, 1.0, host)
        off = difference(model, peer, batches, wanted)
        found.append((peer.name, batch, card, amp[2] / card, host, amp[4] / host, off))
    return found


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Inference on an NVIDIA GPU.",
        ("model", {"type": Path, "help": "exported model"}),
        ("patients", {"type": Path, "nargs": "*", "help": "folders with four modalities"}),
        ("--compile", {"default": "reduce-overhead", "help": "mode of torch.compile, or off"}),
    )
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark compares runtimes on an NVIDIA GPU, and torch finds none.")
    torch.backends.cudnn.benchmark = True  # torch searches as well
    torch.backends.cudnn.allow_tf32 = False  # as in both runtimes: fp32 is exact
    try:
        model = open_model(given.model)
        patients = find_patients(given.patients) if given.patients else ()
        scans = [read_scan(patient, model.manifest.grid).data for patient in patients]
        peers = [*torch_peers(model, given.compile), *onnx_peers(model)]
        table = [
            row
            for batch in (1, model.manifest.max_batch)
            for row in rows(model, peers, scans or [load_selftest(model)[0]], batch)
        ]
    except GradeError as error:
        raise SystemExit(str(error)) from None
    grid = " x ".join(map(str, model.manifest.grid.shape))
    title = f"Inference on {torch.cuda.get_device_name()}, ms a volume of {grid}, |dp| on {len(scans)} patients"
    report(title, COLUMNS, table, given.out)


if __name__ == "__main__":
    main()
