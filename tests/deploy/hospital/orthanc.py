"""Debian's Orthanc on loopback: an archive that forwards every stable study, also those that hold our answer."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.hospital.ward import free_port, wait_until

PROGRAM = "/usr/sbin/Orthanc"
DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
_ROUTE = """
function OnStableStudy(study, tags, metadata)
  RestApiPost('/modalities/grade/store', study, false)
end
"""


@dataclass(frozen=True)
class Orthanc:
    """A running one: its ports, and what it holds."""

    port: int
    http: int

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            return json.load(answer)

    def series(self) -> list[dict[str, Any]]:
        return [self.get(f"/series/{key}") for key in self.get("/series")]

    def modalities(self) -> list[str]:
        return sorted(one["MainDicomTags"]["Modality"] for one in self.series())

    def download(self, instance: str, file: Path) -> Path:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/instances/{instance}/file", timeout=10) as answer:
            file.write_bytes(answer.read())
        return file


@contextmanager
def orthanc(folder: Path, grade_port: int, forward: bool = True) -> Iterator[Orthanc]:
    """Start one; `grade_port` is where it thinks the AE title GRADE listens."""
    running = Orthanc(free_port(), free_port())
    folder.mkdir()
    (folder / "route.lua").write_text(_ROUTE)
    settings = {
        "Name": "PACS",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": running.http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": running.port,
        "DicomAet": "PACS",
        "DicomModalities": {
            "grade": ["GRADE", "127.0.0.1", grade_port],
            "modality": ["MODALITY", "127.0.0.1", grade_port],
        },
        "OverwriteInstances": True,
        "StableAge": 1,
        "LuaScripts": [str(folder / "route.lua")] if forward else [],
        "Plugins": [DICOMWEB] if Path(DICOMWEB).exists() else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            wait_until(lambda: _answers(running), what=f"Orthanc is up: {folder / 'log.txt'}")
            yield running
        finally:
            process.kill()  # nobody needs what it holds; to end in order takes it 3 s
            process.wait(20)


def _answers(running: Orthanc) -> bool:
    try:
        return bool(running.get("/system"))
    except OSError:
        return False
