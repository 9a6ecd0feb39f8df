"""Debian's programs that the tests of the hospital's doors use as witnesses; a test that lacks one says which."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PACKAGES = {
    "/usr/bin/dciodvfy": "dicom3tools",
    "/usr/bin/dsrdump": "dcmtk",
    "/usr/bin/storescu": "dcmtk",
    "/usr/bin/echoscu": "dcmtk",
    "/usr/sbin/Orthanc": "orthanc",
    "/usr/share/orthanc/plugins/libOrthancDicomWeb.so": "orthanc-dicomweb",
}


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip with a sentence that names the Debian packages that are missing."""
    missing = sorted({PACKAGES[program] for program in programs if not Path(program).exists()})
    return pytest.mark.skipif(
        bool(missing), reason=f"not tested: Debian's {' and '.join(missing)} not installed (apt-get install it)"
    )


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60, check=False)


def validation_errors(file: Path) -> list[str]:
    """Lines that `dciodvfy` calls errors."""
    done = run("/usr/bin/dciodvfy", file)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
