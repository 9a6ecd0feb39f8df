"""What the first answer takes, by the options of ONNX Runtime's CUDA provider, each in a fresh process.

    python -m benchmarks.first MODEL

Seconds of the session and of the first scan and batch, and ms of later ones; then the same with an empty cache of CUDA.
On a machine without a GPU the provider is the CPU's, and only the program is tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.common import arguments, report

OPTIONS = {
    f"{search}{', fused' if fused else ''}{'' if nhwc else ', NCHW'}": {
        "cudnn_conv_algo_search": search,
        "fuse_conv_bias": str(fused),
        "prefer_nhwc": str(nhwc),
    }
    for search in ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
    for fused in (1, 0)
    for nhwc in (1, 0)
}
EMPTY = ("EXHAUSTIVE, fused", "HEURISTIC")  # what is measured with an empty cache as well
TURNS = 12
COLUMNS = ("session s", "first scan s", "later ms", "first batch s", "later ms a scan", "failure")


def measured(content: bytes, batch: int, shape: tuple[int, ...], options: dict[str, str]) -> dict[str, Any]:
    """One set of options, here and now."""
    import numpy as np
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    on_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    provider: Any = ("CUDAExecutionProvider", {"device_id": "0", **options}) if on_gpu else "CPUExecutionProvider"
    start = perf_counter()
    session = onnxruntime.InferenceSession(content, providers=[provider])
    found: dict[str, Any] = {"session s": perf_counter() - start}
    for size, first, later in ((1, *COLUMNS[1:3]), (batch, *COLUMNS[3:5])):
        scans = np.random.default_rng(0).standard_normal((size, *shape), np.float32)
        times = []
        try:
            for _ in range(TURNS):
                start = perf_counter()
                session.run(None, {"scan": scans})
                times.append(perf_counter() - start)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no other base
            return found | {"failure": str(error)[:80]}
        found |= {first: times[0], later: 1000 * median(times[1:]) / size}
    return found


def apart(model: Path, name: str, cache: str | None) -> dict[str, Any]:
    """The same in a process of its own; `cache` is CUDA's, None: the user's."""
    environment = os.environ | ({"CUDA_CACHE_PATH": cache} if cache else {})
    command = [sys.executable, "-m", "benchmarks.first", str(model), "--options", name]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and report."""
    from deploy.model.folder import open_model

    given = arguments(
        "What the first answer takes.",
        ("model", {"type": Path, "help": "exported model"}),
        ("--options", {"choices": tuple(OPTIONS), "help": "measure these alone, here"}),
    )
    if given.options:
        model = open_model(given.model)
        shape = (len(model.manifest.modalities), *model.manifest.grid.shape)
        found = measured(model.onnx("fp16"), model.manifest.max_batch, shape, OPTIONS[given.options])
        print(json.dumps(found))
        return
    apart(given.model, next(iter(OPTIONS)), None)  # the files are in memory, and the cache is filled
    rows = [(name, *map(apart(given.model, name, None).get, COLUMNS)) for name in OPTIONS]
    for name in EMPTY:
        with tempfile.TemporaryDirectory() as cache:
            rows.append((f"{name}, empty cache", *map(apart(given.model, name, cache).get, COLUMNS)))
    report("The first answer", ("options", *COLUMNS), rows, given.out)


if __name__ == "__main__":
    main()
