"""Writes the files with hashes that the Docker images are installed from: `python requirements/make.py`.

Only the image's own wheels are asked for: CPython 3.12 on 64-bit Linux with glibc 2.39 (Ubuntu 24.04), from the public
index alone, in the versions of constraints.txt. Nothing is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
INDEX = "https://files.pythonhosted.org/"
PYTHON = ("--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--abi", "abi3", "--abi", "none")
GLIBC = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)] + ["manylinux2014_x86_64", "linux_x86_64"]
# pip asks markers of the Python that runs it; these are of older ones alone.
NOT_NEEDED = {"importlib-resources", "importlib-metadata", "zipp"}
# What `grade serve` uses of grade's own dependencies, which a prediction does without.
OWN = ["scipy", "nilearn", "jinja2", "matplotlib"]
BUILD = "setuptools"  # builds grade itself; the images do not keep it

HEAD = """\
# Written by `python requirements/make.py`; the wheels of CPython 3.12, Linux, x86-64, on the public index.
"""


def wanted() -> dict[str, list[str]]:
    """What goes into each file, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    predict = (HERE / "predict.in").read_text(encoding="utf-8").split()
    rtx = [text for text in extras["rtx"] if text.startswith("tensorrt")]
    return {
        "predict.txt": [*predict, BUILD],
        "hospital.txt": [*predict, *extras["hospital"], *OWN],
        "rtx.txt": rtx,
        "train.txt": [*project["dependencies"], *extras["gpu"], BUILD],
    }


def resolve(texts: list[str], work: Path) -> str:
    """The lines of a file: every package that these need, with version and hash."""
    asked, report = work / "asked.txt", work / "report.json"
    asked.write_text("\n".join(texts) + "\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
        *("--report", str(report), "--target", str(work / "target"), "--use-feature=fast-deps"),
        *("--only-binary=:all:", *PYTHON, *(word for tag in GLIBC for word in ("--platform", tag))),
        *("-c", str(ROOT / "constraints.txt"), "-r", str(asked)),
    ]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    subprocess.run(command, check=True, env={**plain, "PIP_CONFIG_FILE": os.devnull})  # noqa: S603
    return lines(json.loads(report.read_text(encoding="utf-8")))


def lines(report: dict) -> str:
    """The report of pip as a requirements file."""
    found = {}
    for package in report["install"]:
        name, download = package["metadata"]["name"].lower().replace("_", "-"), package["download_info"]
        if not download["url"].startswith(INDEX):
            raise SystemExit(f"{name} is not from the public index: {download['url']}")
        digest = download["archive_info"]["hash"].replace("=", ":")
        found[name] = f"{name}=={package['metadata']['version']} \\\n    --hash={digest}"
    return "".join(f"{found[name]}\n" for name in sorted(found.keys() - NOT_NEEDED))


if __name__ == "__main__":
    for file, texts in wanted().items():
        with tempfile.TemporaryDirectory() as work:
            (HERE / file).write_text(HEAD + resolve(texts, Path(work)), encoding="utf-8")
