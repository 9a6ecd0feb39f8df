"""What libraries find when they are loaded."""

import subprocess
import sys

import pytest

HIDDEN = {
    "toolkit.data.reading": ("nibabel", ("pydicom",)),
    "toolkit.training.network.network": ("monai", ("ignite", "mlflow", "pandas", "skimage", "sklearn", "tensorboard")),
}


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
