"""What libraries read from the environment when they are loaded, set before any of them is."""

from __future__ import annotations

import getpass
import os


def prepare() -> None:
    """Switch off what reports to a library's makers; give a user without a name one."""
    # From 1.29 on ONNX Runtime sends events, with an id that it keeps in the home folder, unless this is set.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in a container: torch and MONAI ask for one
        os.environ["USER"] = f"uid-{os.getuid()}"
