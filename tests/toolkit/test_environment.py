"""What libraries find when they are loaded."""

import subprocess
import sys

import pytest

HIDDEN = {
    "toolkit.data.reading": ("nibabel", ("pydicom",)),
    "toolkit.training.network.network": ("monai", ("ignite", "mlflow", "pandas", "skimage", "sklearn", "tensorboard")),
}


SEARCHED = """
import sys
import torch, scipy.ndimage, pydantic, toolkit.config

class Finder:
    asked = set()
    def find_spec(self, name, path=None, target=None):
        self.asked.add(name.partition(".")[0])

sys.meta_path.insert(0, Finder())
import toolkit.training.network.backbones
print(*sorted(Finder.asked - sys.stdlib_module_names))
"""


def test_monai_looks_for_no_package_that_networks_do_not_need() -> None:
    """Whatever else a machine has; on one with CuPy, torchvision and transformers MONAI's import took 13 s."""
    ended = subprocess.run([sys.executable, "-c", SEARCHED], capture_output=True, text=True, check=True)
    needed = {"monai", "nibabel", "scipy", "torch", "toolkit"}
    small = {"backports", "compression", "filelock", "indexed_gzip", "nvidia", "packaging", "tqdm"}
    assert set(ended.stdout.split()) <= needed | small


@pytest.mark.parametrize("module", HIDDEN)
def test_what_is_kept_from_one_library_is_there_for_everybody_else(module: str) -> None:
    library, packages = HIDDEN[module]
    code = (
        f"import sys, {module}\n"
        "from importlib.util import find_spec\n"
        f"assert {library!r} in sys.modules\n"
        f"assert not [name for name in {packages!r} if name in sys.modules]\n"
        f"assert all(map(find_spec, {packages!r}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
