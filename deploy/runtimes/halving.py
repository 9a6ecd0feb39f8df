"""A runtime that goes on with smaller batches when the device's memory does not suffice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from deploy.model import Precision
from deploy.runtimes import Array, Runtime, RuntimeOutputs
from toolkit.errors import OutOfMemory


@dataclass
class Halving:
    """See `deploy.runtimes.Runtime`.

    Attributes:
        runtime: what computes.
        most: scans that it is given at once; halved at each want of memory, and never raised again. None: no limit yet.
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
        """See `deploy.runtimes.Runtime`."""
        return self.runtime.engine_hash

    def infer(self, scans: Array) -> RuntimeOutputs:
        """See `deploy.runtimes.Runtime.infer`.

        Raises:
            OutOfMemory: a single scan is too much.
        """
        while True:
            try:
                return self._infer(scans, self.most or len(scans))
            except OutOfMemory:
                tried = min(self.most or len(scans), len(scans))
                if tried <= 1:
                    raise
                self.most = tried // 2

    def _infer(self, scans: Array, most: int) -> RuntimeOutputs:
        if len(scans) <= most:
            return self.runtime.infer(scans)
        parts = [self.runtime.infer(scans[start : start + most]) for start in range(0, len(scans), most)]
        return RuntimeOutputs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
