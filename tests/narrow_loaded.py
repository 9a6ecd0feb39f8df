"""What the processes of a study or of folds are forked from, with the tests' narrow networks."""

import toolkit.training.loaded  # noqa: F401
from tests.narrow import PLANES
from toolkit.training.network import backbones

backbones.PLANES = PLANES
