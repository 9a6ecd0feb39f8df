"""The notebooks of `examples/`, executed in a folder like the one they ask for."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from toolkit.data.patients import Patient, match_modalities

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(exported: Path, patients: tuple[Patient, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(exported, tmp_path / "model")
    for patient in patients[:2]:
        (tmp_path / "patients" / patient.id).mkdir(parents=True)
        for file in match_modalities(patient.folder).modalities.values():
            shutil.copy(file, tmp_path / "patients" / patient.id)
    shutil.copytree(patients[0].folder.parents[1], tmp_path / "cohort")
    # The kernel is this interpreter, whatever kernels are installed, and finds the packages of this checkout.
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        f'{{"argv": ["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"],'
        ' "display_name": "Python 3", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return tmp_path


@pytest.mark.parametrize("name", ["predict", "train"])
@pytest.mark.filterwarnings("ignore")  # of the notebook machinery itself
def test_notebook(name: str, home: Path) -> None:
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(home)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
