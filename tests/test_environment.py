"""Machines and users as hospitals have them: no home folder, no name, a terminal of ASCII; nothing reports home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ANSWER = """
import numpy as np, onnx, sys
import {package}
import onnxruntime
from onnx import TensorProto, helper
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value("x")], [value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
assert session.run(None, {{"x": np.ones(1, np.float32)}})[0] == -1
"""


def run(words: list[str], environment: dict[str, str], user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python as it is started without anything that this machine's environment says."""
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *words],
        env=base | environment,
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        cwd="/",
    )


@pytest.mark.parametrize("package", ["deploy", "toolkit", "deploy.runtimes.onnx"])
def test_onnx_runtime_keeps_no_id_and_sends_no_events(package: str, tmp_path: Path) -> None:
    done = run(["-c", ANSWER.format(package=package)], {"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.rglob("*") if "microsoft" in str(path).lower()] == []
    assert "telemetry" not in done.stderr


def test_ray_does_not_report(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    program = (
        "import deploy.cluster.predict\nfrom ray._common.usage import usage_lib\nprint(usage_lib.usage_stats_enabled())"
    )
    done = run(["-c", program], {"HOME": str(tmp_path)})
    assert done.stdout.strip() == "False", done.stderr


def _reachable() -> bool:
    """Whether another user may start this Python."""
    try:
        return os.getuid() == 0 and run(["-c", ""], {}, 54321).returncode == 0
    except PermissionError:  # it is in a folder that is root's alone
        return False


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["info"], 0),
        (["train", "--set", "data.cohort=nowhere"], 1),
        (["predict", "nowhere"], 1),
        (["bench", "--model", "nowhere"], 1),
    ],
)
def test_a_user_without_a_name_and_a_home(words: list[str], code: int) -> None:
    if not _reachable():
        pytest.skip("only root can become another user, and that user must be able to start this Python")
    done = run(["-m", "cli", *words], {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, 54321)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "getpwuid" not in done.stderr
