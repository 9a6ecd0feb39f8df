"""How many examples the property tests try: `pytest --hypothesis-profile=thorough` for many; a machine without CUDA."""

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before any library is loaded. Tests run several at once, and so do the programs that they start: a thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Torch and its company are half a million objects; by default they are looked through again and again.
gc.set_threshold(50_000, 20, 100)

settings.register_profile("default", max_examples=200, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5000)
settings.load_profile("default")


def pytest_collection_finish() -> None:
    """What the modules of the tests have loaded stays, so no later search for garbage looks at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Gives a folder, to be left as it is, that the first of the tests' processes to need it has made for all."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = root / name, root / f"{name}.whole"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def faults(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder of hostile patients and what is expected of each, to be left as it is."""
    from tests.toolkit.data.faults.__main__ import write_all

    return once("faults", write_all)


@pytest.fixture
def forked_parts() -> Iterator[None]:
    """Readers in processes, and parts of the service, are forked from here, not started."""
    from tests import forked

    with forked.forked_parts():
        yield


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that was built without CUDA, whatever is installed."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
