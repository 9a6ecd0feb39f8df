"""`Dockerfile.gpu` against pyproject, constraints and what a prediction imports."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile.gpu").read_text()
# Training, evaluation and export only.
LEFT_OUT = {
    *("scipy", "scikit-learn", "matplotlib", "jinja2", "openpyxl", "nilearn", "torch", "monai"),
    *("onnx", "onnxscript", "safetensors"),
}


def pins(text: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in re.findall(r"([\w.-]+)==([\w.]+)", text)}


def stage(name: str) -> str:
    (body,) = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE)
    return body


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    """Name -> version that the image `predict` pins; comments do not count."""
    return pins("\n".join(line for line in stage("build-predict").splitlines() if not line.startswith("#")))


def test_versions_are_those_of_the_constraints(installed: dict[str, str]) -> None:
    known = pins((ROOT / "constraints.txt").read_text())
    assert len(installed) == 13
    assert {name: known.get(name) for name in installed} == installed


def test_names_are_those_of_pyproject(project: dict, installed: dict[str, str]) -> None:
    core = {Requirement(text).name for text in project["dependencies"]}
    extras = {Requirement(text).name for name in ("gpu", "rtx") for text in project["optional-dependencies"][name]}
    assert set(installed) == (core - LEFT_OUT) | extras
    assert set(re.findall(r"'\.\[([\w,]+)\]'", stage("build-train"))) == {"gpu,rtx"}
    for text in [*project["dependencies"], *project["optional-dependencies"]["rtx"]]:
        wanted = Requirement(text)
        if wanted.name in installed:
            assert wanted.specifier.contains(installed[wanted.name])


def needed(names: set[str]) -> set[str]:
    """Names and all that these depend on, as installed here."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            texts = requires(name) or []
        except PackageNotFoundError:
            continue
        wanted = [Requirement(text) for text in texts]
        waiting += [canonicalize_name(w.name) for w in wanted if not w.marker or w.marker.evaluate({"extra": ""})]
    return found


IMPORTS = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # as if it were not installed
import cli.main, cli.screens.predict, cli.screens.bench, cli.tables
import cli.commands.predict, cli.commands.info, cli.commands.bench
import deploy.bench, deploy.engine, deploy.predict, deploy.runtimes.onnx, deploy.runtimes.tensorrt
import tensorrt_rtx_bindings
print(*{name.partition(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)})
"""


def test_a_prediction_imports_nothing_else(installed: dict[str, str]) -> None:
    absent = {name.replace("scikit-learn", "sklearn") for name in LEFT_OUT}
    answer = subprocess.run(
        [sys.executable, "-c", IMPORTS, *absent], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    owners = packages_distributions()
    used = {canonicalize_name(owner) for name in answer.stdout.split() for owner in owners.get(name, ())}
    # Here the CPU's onnxruntime stands in.
    there = needed(set(installed)) | {"onnxruntime", "glioma-grade", "setuptools"}
    assert "numpy" in used
    assert "onnxruntime" in used
    assert used <= there


def test_the_images_are_what_the_page_says() -> None:
    final = stage("predict") + stage("train") + stage("base")
    assert not re.search(r"gcc|build-essential|pip install|devel", final)
    assert stage("predict").count("USER 10001") == stage("train").count("USER 10001") == 1
    assert "HEALTHCHECK" in stage("predict")
    assert '"--self-test"' in stage("predict")
    assert "-runtime-" in re.search(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)[1]
    assert "torch" not in stage("build-predict").replace("no torch", "")
    page = (ROOT / "docs" / "deploy.md").read_text()
    for target in re.findall(r"--target ([\w-]+)", page):
        assert f" AS {target}\n" in DOCKERFILE
    for version in re.findall(r"tensorrt==([\d.]+)", page):
        assert f"tensorrt=={version}" in DOCKERFILE


def test_hadolint() -> None:
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    answer = subprocess.run([program, ROOT / "Dockerfile.gpu"], check=False, capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout) == (0, "")
