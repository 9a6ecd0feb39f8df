import shutil
import sys
from multiprocessing import forkserver, resource_tracker

import nibabel as nib
import numpy as np
import pytest
from markupsafe import escape
from scipy import ndimage

from cli.main import run as run_grade
from cli.screens.train import TrainingScreen
from deploy.export.export import export_run
from deploy.model.folder import BRAIN, file_hashes, open_model, write_manifest
from deploy.model.manifest import BrainRecord
from tests.deploy.hospital.scene import write_bright_network
from tests.forked import Forked, fork_server
from tests.narrow import narrow
from toolkit.config import load_settings
from toolkit.data.patients import MODALITIES
from toolkit.training.start import start_training

AFFINE = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]])

SETTINGS = """
[data]
cohort = "cohort"
spacing = 1.5
shape = [16, 16, 16]
validation = 0.5

[network]
depth = 10

[training]
epochs = 2
min_epochs = 1
warmup_epochs = 0
ema = 0
"""


class Grade:
    """The command line, called as the console script calls it."""

    def __init__(self, capsys):
        self._capsys = capsys

    def __call__(self, *words):
        """Exit code, standard output and standard error."""
        before, sys.argv = sys.argv, ["grade", *map(str, words)]
        try:
            with pytest.raises(SystemExit) as ended:
                run_grade()
        finally:
            sys.argv = before
        shown = self._capsys.readouterr()
        return ended.value.code or 0, shown.out, shown.err


@pytest.fixture
def grade(capsys):
    return Grade(capsys)


def write_patient(folder, seed, bright, affine=AFFINE):
    """A tiny patient; in an HGG one the middle of T1ce is bright."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in MODALITIES:
        image = np.zeros((24, 24, 20))
        image[3:21, 4:20, 2:18] = 400 + ndimage.gaussian_filter(rng.normal(0, 200, (18, 16, 16)), 1)
        if name == "t1ce" and bright:
            image[9:15, 9:15, 7:13] += 400
        nib.save(nib.Nifti1Image(image.astype(np.int16), affine), folder / f"{folder.name}_{name}.nii.gz")


@pytest.fixture(scope="session")
def drawn(once):
    return once("cli-cohort", write_twelve)


def write_twelve(folder):
    for seed in range(12):
        write_patient(folder / ("LGG", "HGG")[seed % 2] / f"p{seed:02}", seed, seed % 2)


@pytest.fixture
def cohort(drawn, tmp_path):
    """Six LGG and six HGG in BraTS 2018's layout."""
    return shutil.copytree(drawn, tmp_path / "cohort")


@pytest.fixture
def project(tmp_path, cohort, monkeypatch):
    """A folder with a grade.toml, which is the working folder."""
    (tmp_path / "grade.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def _narrow():
    with narrow():
        yield


@pytest.fixture(scope="module", autouse=True)
def _unpictured():
    """Without the curves of a report, seconds of each training; test_whole_path.py has them."""
    with pytest.MonkeyPatch.context() as patch:
        for page in ("report", "study_page"):
            patch.setattr(f"toolkit.evaluation.pages.{page}.svg", lambda _, alt, *__: escape(alt))
        yield


@pytest.fixture
def narrow_jobs(monkeypatch):
    """What forks the processes of a study or of folds is forked from here: networks are narrow in them, too."""
    forkserver._forkserver._stop()  # made for tests
    resource_tracker.ensure_running()
    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", fork_server)
    yield
    forkserver._forkserver._stop()


@pytest.fixture
def forked_gate(monkeypatch):
    """A command behind the gate is forked from here: what is loaded need not be loaded again."""

    def forked(words, env, **_):
        return Forked(words[words.index("--no-phi") :], env=env)

    monkeypatch.setattr("cli.gate.subprocess.Popen", forked)


@pytest.fixture(scope="session")
def made(drawn, once):
    """A project with a trained and exported model, to be left as it is."""
    with narrow():  # made before a module's fixtures
        return once("cli-project", lambda folder: make_project(folder, drawn))


def make_project(folder, cohort):
    shutil.copytree(cohort, folder / "cohort")
    (folder / "grade.toml").write_text(SETTINGS)
    with TrainingScreen() as screen:
        run = start_training(load_settings(folder / "grade.toml"), folder / "runs" / "tiny", screen)
    export_run(run, folder / "model", run.settings.export, None, lambda _: None)
    return folder


@pytest.fixture
def site(made, tmp_path, monkeypatch):
    """A working folder with a model that has a brain mask, of a network that knows the brain of `scene`."""
    shutil.copytree(made / "model", tmp_path / "model")
    write_bright_network(tmp_path / "model" / BRAIN)
    manifest = open_model(tmp_path / "model").manifest
    record = BrainRecord(file=BRAIN, source="test", weights="0" * 64, licence="none", unknown="all", differing=0.0)
    files = file_hashes(tmp_path / "model")
    write_manifest(tmp_path / "model", manifest.model_copy(update={"brain": record, "files": files}))
    monkeypatch.chdir(tmp_path)
    return tmp_path
