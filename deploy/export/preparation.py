"""The gate of the preprocessing on the card: patients whose scans it makes are answered as those of the processor."""

from __future__ import annotations

import numpy as np

from deploy.model.folder import Draft
from deploy.runtime import RuntimeOutputs
from deploy.runtimes.card import LIMIT, Card
from deploy.runtimes.onnx import OnnxRuntime
from deploy.selftest import LIMITS, probability
from toolkit.config import Grid
from toolkit.data.box import read_box
from toolkit.data.patients import Patient
from toolkit.data.scan import Scan
from toolkit.errors import ModelError

MOST = 4  # patients: the graph has nothing that is learned, and every prediction on a card proves it once more


class PreparationGate:
    """Compares scans that the graph of `deploy.runtimes.card` makes with those of `toolkit.data.scan`.

    Args:
        model: whose grid and calibration count.
        runtime: where the graph runs; on a GPU where there is one.
    """

    def __init__(self, model: Draft, runtime: OnnxRuntime) -> None:
        self._model, self._runtime, self._left = model, runtime, MOST
        self._card = Card(runtime, 1)
        self._card.prove()

    def patient(self, patient: Patient, scan: Scan, answer: RuntimeOutputs) -> None:
        """Compare on a patient; nothing after the first few.

        Args:
            patient: whose files are read again.
            scan: of the processor.
            answer: of the runtime to it.

        Raises:
            ModelError: a z-score, the probability or the grade differs by more than it may.
        """
        if not self._left:
            return
        self._left -= 1
        _, box = read_box(patient, Grid(**self._model.manifest.grid.model_dump()))
        if box is None:
            return
        self._card.fill(0, box)
        off = float(np.abs(self._card.scans.on_host()[0] - scan.data).max())
        calibration, limit = self._model.manifest.calibration, LIMITS[self._runtime.precision]
        p, q = (probability(one, calibration)[0] for one in (answer, self._runtime.infer(self._card.scans)))
        if not (off <= LIMIT and abs(p - q) <= limit):
            raise ModelError(
                f"the preprocessing on {self._runtime.device} differs for patient {patient.id} by {off:.2g} in a"
                f" z-score and {abs(p - q):.2g} in probability, more than {LIMIT:g} and {limit:g}."
            )
