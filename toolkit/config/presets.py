"""The strategies: what each changes in the defaults."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "stable": {},  # the defaults above
    "ldam": {"training": {"sampler": "shuffle", "loss": "ldam", "drw_epoch": 1, "ema": 0.0, "frozen_bn_epoch": 0}},
    # What the earlier set-up did, kept to be compared with: three balancing mechanisms on batches of 2.
    "legacy": {
        "training": {
            "loss": "ldam",
            "ldam_max_m": 0.2,
            "ldam_s": 15.0,
            "drw_epoch": 25,
            "batch_size": 2,
            "head_lr": 5e-4,
            "early_stopping": 7,
            "min_epochs": 10,
            "warmup_epochs": 4,  # 10 % of 40 epochs
            "ema": 0.0,
            "frozen_bn_epoch": 0,
            "augment": {"rotation": 11.5},
        }
    },
}
