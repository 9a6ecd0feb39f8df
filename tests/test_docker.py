"""`Dockerfile.gpu` against pyproject, constraints and what a prediction imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from toolkit.config.service import ServiceSettings

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


FILES = ("predict.txt", "hospital.txt", "rtx.txt", "train.txt")


def requirements(name: str) -> str:
    return (ROOT / "requirements" / name).read_text()


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    """Name -> version of what the image `predict` asks for."""
    known = pins(requirements("predict.txt"))
    asked = map(canonicalize_name, requirements("predict.in").split())
    return {name: known[name] for name in asked} | pins(requirements("rtx.txt"))


@pytest.mark.parametrize("name", FILES)
def test_versions_are_those_of_the_constraints(name: str) -> None:
    known, found = pins((ROOT / "constraints.txt").read_text()), pins(requirements(name))
    assert found
    assert {name: known[name] for name in found if name in known} == {
        name: version for name, version in found.items() if name in known
    }


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_its_hash(name: str) -> None:
    lines = re.sub(r"^#.*\n", "", requirements(name), flags=re.MULTILINE)
    assert re.fullmatch(r"(?:[\w.-]+==[\w.+]+ \\\n    --hash=sha256:[0-9a-f]{64}\n)+", lines)


def test_nothing_that_is_needed_is_without_a_hash(installed: dict[str, str]) -> None:
    found = {**pins(requirements("predict.txt")), **pins(requirements("rtx.txt"))}
    machine = {"python_version": "3.12", "python_full_version": "3.12.3", "extra": ""}
    assert needed(set(installed), machine) <= set(found)


def test_no_package_of_a_training_is_without_a_hash(project: dict) -> None:
    found = pins(requirements("train.txt"))
    asked = {Requirement(text).name for text in (*project["dependencies"], *project["optional-dependencies"]["gpu"])}
    assert {canonicalize_name(name) for name in asked} <= set(found)
    machine = {"python_version": "3.12", "python_full_version": "3.12.3", "extra": ""}
    gone = {"importlib-resources", "importlib-metadata", "zipp"}  # of older Pythons alone
    assert needed(asked, machine) - gone <= set(found)


def test_the_service_adds_to_a_prediction_what_it_imports(project: dict) -> None:
    found, predict = pins(requirements("hospital.txt")), pins(requirements("predict.txt"))
    del predict["setuptools"]  # builds grade itself, and is not kept
    assert predict.items() <= found.items()
    asked = {Requirement(text).name for text in project["optional-dependencies"]["hospital"]}
    machine = {"python_version": "3.12", "python_full_version": "3.12.3", "extra": ""}
    assert needed(asked, machine) <= set(found)
    absent = ["torch", "monai", "onnx", "onnxscript", "safetensors", "openpyxl"]
    optional = {"psutil", "chardet", "tqdm", "pylibjpeg-rle"}  # libraries take them where they are
    used = imported(SERVICE, absent) - {"onnxruntime", "glioma-grade", "setuptools"} - optional
    assert {"pynetdicom", "simpleitk", "nilearn", "uvicorn"} <= used <= set(found)
    assert "FROM build-predict AS build-hospital\n" in DOCKERFILE
    assert "COPY --from=build-hospital /opt/grade /opt/grade\n" in stage("hospital")


def test_the_compose_file_builds_and_starts_what_there_is(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "service" / "compose.yaml").read_text()
    service = yaml.safe_load(text)["services"]["grade"]
    (target, image) = re.search(r"--target (\w+) -t ([\w-]+) \.", text).groups()
    assert f" AS {target}\n" in DOCKERFILE
    assert service["image"] == image
    assert service["user"].split(":")[0] == re.search(r"useradd --uid (\d+)", DOCKERFILE)[1]
    unit = (ROOT / "examples" / "service" / "grade.service").read_text()
    assert re.search(r"^ExecStart=\S+/grade (.*)$", unit, re.MULTILINE)[1].split() == service["command"]
    assert f":{ServiceSettings().page_port}/health" in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("image", ["predict", "hospital", "train"])
def test_nothing_is_installed_without_hashes(image: str) -> None:
    calls = re.findall(r"pip install ([^&\n]*)", stage(f"build-{image}").replace("\\\n", " "))
    assert len(calls) == (1 if image == "hospital" else 3)
    for call in calls:
        ours = call.split() == ["--no-cache-dir", "--no-deps", "--no-build-isolation", "."]
        assert ours or "--require-hashes" in call, call
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_pip_takes_the_file_and_refuses_another_wheel(tmp_path: Path) -> None:
    """The real pip, without an index: a wheel of our own under a name that the file pins."""
    wheel = tmp_path / "threadpoolctl-3.8.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "threadpoolctl-3.8.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: threadpoolctl\nVersion: 3.8.0\n"
        )
    (pinned,) = re.findall(r"threadpoolctl==.*\n.*\n", requirements("predict.txt"))
    (tmp_path / "r.txt").write_text(pinned)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-index", "--no-deps"]
    command += ["--find-links", str(tmp_path), "--require-hashes", "-r", str(tmp_path / "r.txt")]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert answer.returncode != 0
    assert "DO NOT MATCH THE HASHES" in answer.stderr


@pytest.mark.parametrize("image", ["predict", "hospital", "train"])
def test_the_list_of_parts_names_every_package(image: str, tmp_path: Path) -> None:
    program, out = ROOT / ".venv/sbom/bin/cyclonedx-py", tmp_path / "parts.cdx.json"
    if not program.exists():
        pytest.skip("`make sbom` installs cyclonedx-py")
    command = [
        program,
        "requirements",
        ROOT / f"requirements/{image}.txt",
        "--pyproject",
        ROOT / "pyproject.toml",
        "-o",
        out,
    ]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=120)
    found = json.loads(out.read_text())
    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "glioma-grade"
    listed = {canonicalize_name(part["name"]): part for part in found["components"]}
    assert {name: part["version"] for name, part in listed.items()} == pins(requirements(f"{image}.txt"))
    assert all("SHA-256" in json.dumps(part) for part in listed.values())


def needed(names: set[str], machine: dict[str, str] | None = None) -> set[str]:
    """Names and all that these depend on, as installed here, by the markers of a machine."""
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
        waiting += [
            canonicalize_name(w.name) for w in wanted if not w.marker or w.marker.evaluate(machine or {"extra": ""})
        ]
    return found


IMPORTS = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # as if it were not installed
import cli.main, cli.screens.predict, cli.screens.bench, cli.tables
from importlib import import_module
from cli.listing import COMMANDS
for name in COMMANDS:  # the help of each has to be there
    import_module(f"cli.commands.{name}")
import deploy.bench, deploy.tensorrt.engine, deploy.predict.pipeline, deploy.runtimes.onnx, deploy.runtimes.tensorrt
import tensorrt_rtx_bindings
print(*{name.partition(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)})
"""


SERVICE = """
import sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name in sys.argv[1:]:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Absent)  # a None in sys.modules, as above, confuses scipy
import cli.main, cli.screens.serve, cli.screens.pacs, cli.screens.bring_in
from importlib import import_module
from cli.listing import COMMANDS
for name in COMMANDS:
    import_module(f"cli.commands.{name}")
import deploy.hospital.page, deploy.hospital.network.web, deploy.hospital.service.status, deploy.report.pages
from deploy.hospital.space.pose import find_pose
from nilearn.datasets import load_mni152_template
print(*{name.partition(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)})
"""


def imported(program: str, absent: Iterable[str]) -> set[str]:
    """Distributions that a program loads while some modules are not to be had."""
    answer = subprocess.run(
        [sys.executable, "-c", program, *absent], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    owners = packages_distributions()
    return {canonicalize_name(owner) for name in answer.stdout.split() for owner in owners.get(name, ())}


def test_a_prediction_imports_nothing_else(installed: dict[str, str]) -> None:
    used = imported(IMPORTS, [name.replace("scikit-learn", "sklearn") for name in LEFT_OUT])
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
    known = pins((ROOT / "constraints.txt").read_text())
    assert set(re.findall(r"tensorrt-cu13\S*==([\d.]+)", page)) <= {known.get("tensorrt", "11.4.0.106")}


def test_hadolint() -> None:
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    answer = subprocess.run([program, ROOT / "Dockerfile.gpu"], check=False, capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout) == (0, "")
