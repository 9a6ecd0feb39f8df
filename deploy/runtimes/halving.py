"""A runtime that continues with smaller batches when the device's memory does not suffice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np

from deploy.model.folder import Precision
from deploy.runtime import Array, DeviceScans, Runtime, RuntimeOutputs
from toolkit.errors import OutOfMemory


@dataclass
class Halving:
    """See `deploy.runtime.Runtime`.

    Attributes:
        runtime: what computes.
        most: scans that it is given at once; halved after each out-of-memory error, and never raised again. None: no
            limit yet.
    """

    runtime: Runtime
    most: int | None = None
    name: str = field(init=False)
    device: str = field(init=False)
    precision: Precision = field(init=False)
    chosen: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.device = self.runtime.name, self.runtime.device
        self.precision, self.chosen = self.runtime.precision, self.runtime.chosen

    @property
    def engine_hash(self) -> str:
        """See `deploy.runtime.Runtime`."""
        return self.runtime.engine_hash

    def infer(self, scans: Array | DeviceScans) -> RuntimeOutputs:
        """See `deploy.runtime.Runtime.infer`.

        Raises:
            OutOfMemory: a single scan is too much.
        """
        parts: list[RuntimeOutputs] = []
        done = 0
        while done < len(scans):
            part = scans[done : done + (self.most or len(scans))]
            try:
                parts.append(self.runtime.infer(cast(Array, part)))  # of a device only where that runtime made it
            except OutOfMemory:
                if len(part) == 1:
                    raise
                self.most = len(part) // 2
            else:
                done += len(part)
        return parts[0] if len(parts) == 1 else RuntimeOutputs(*map(np.concatenate, zip(*parts, strict=True)))
