"""The template is nilearn's own, without what nilearn brings along."""

import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from toolkit.data.template import mni
from toolkit.errors import RuntimeUnavailable


@pytest.mark.parametrize(
    "what, step, theirs",
    [
        ("t1", 1, "load_mni152_template"),
        ("t1", 2, "load_mni152_template"),
        ("gm", 1, "load_mni152_gm_template"),
        ("wm", 1, "load_mni152_wm_template"),
    ],
)
def test_it_is_what_nilearn_gives(what, step, theirs):
    image = getattr(import_module("nilearn.datasets"), theirs)(resolution=step)
    voxels, affine = mni(what, step)
    np.testing.assert_allclose(voxels, np.asarray(image.dataobj), atol=1e-12)
    np.testing.assert_array_equal(affine, image.affine)
    assert voxels.dtype == np.float32


def test_nilearn_is_not_loaded():
    code = "import sys; from toolkit.data.template import mni; mni('t1'); assert 'nilearn' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wheel_without_the_file(monkeypatch):
    monkeypatch.setattr("toolkit.data.template.find_spec", lambda name: None)
    with pytest.raises(RuntimeUnavailable, match=r"mni_icbm152_t1_\w+\.nii\.gz is missing"):
        mni("t1")
