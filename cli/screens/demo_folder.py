"""The folder of a demo and its settings; torch is not loaded for them."""

from __future__ import annotations

from pathlib import Path

from toolkit.config import Settings, load_settings
from toolkit.files import write_file
from toolkit.owned import OwnedFolder

MARK = ".grade-demo"  # lists what a demo wrote, which the next one may delete

# A network and a grid that a laptop trains in minutes. With real patients leave all of it out: the defaults are the
# full ResNet50-3D at 1.5 mm.
SETTINGS = """\
strategy = "stable"

[data]
cohort = "cohort"
spacing = 3.0
shape = [52, 64, 52]
validation = 0.25

[network]
depth = 10

[training]
seed = {seed}
epochs = 9
min_epochs = 9
warmup_epochs = 1
batch_size = 8
accumulation = 1
lr = 2.5e-4
head_lr = 5e-4
ema = 0.5  # of the average of the weights, left after an epoch; less than the default, as there are nine
"""


def begin(out: Path, seed: int) -> Settings:
    """Make the folder and its `grade.toml`."""
    owned(out).begin()
    file = out / "grade.toml"
    with owned(out).writing(file.name):
        write_file(file, SETTINGS.format(seed=seed))
    return load_settings(file)


def owned(out: Path) -> OwnedFolder:
    """The folder of a demo, which the next demo replaces if nothing else is in it."""
    return OwnedFolder(out, MARK, "demo")
