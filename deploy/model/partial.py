"""What counts for patients who lack a modality: learned from the same validation patients, the modality left out."""

from __future__ import annotations

from deploy.model.origin import Figure
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.conformal import Conformal
from toolkit.evaluation.familiarity import Familiarity
from toolkit.frozen import FrozenFinite


class Partial(FrozenFinite):
    """One set of modalities.

    Attributes:
        calibration: from logits to probability, and the threshold.
        conformal: from probability to the grades that are possible.
        familiarity: limits; the distance is measured in the space of all modalities.
        reference: grade -> the validation patients' P(HGG), rising.
        auc: on the validation patients without the modality.
        auc_whole: on the same patients with all modalities.
    """

    calibration: Calibration
    conformal: Conformal
    familiarity: Familiarity
    reference: dict[str, tuple[float, ...]]
    auc: Figure
    auc_whole: Figure

    def cost(self, missing: str) -> str:
        """What the lack of a modality costs, in a sentence."""
        without, whole = (
            f"{value:.3f} ({low:.3f} to {high:.3f})" if low is not None and high is not None else f"{value or 0:.3f}"
            for value, low, high in (self.auc, self.auc_whole)
        )
        return f"{missing} is missing: without it the AUC on the validation patients is {without}, with it {whole}"
