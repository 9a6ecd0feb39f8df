"""Image statistics in words: what each is called, its unit, and what an unusual value may come from."""

from __future__ import annotations

from math import isnan
from typing import NamedTuple

from toolkit.data.patients import MODALITIES

TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1 with contrast", "t2": "T2"}
FAR = 0.5  # of the usual range's width: what is farther beyond it is much lower or higher


class Wording(NamedTuple):
    """One statistic.

    Attributes:
        name: as a reader knows it.
        unit: of its value; empty for a plain ratio.
        low: what a value below the usual range may come from.
        high: the same above it.
    """

    name: str
    unit: str
    low: str
    high: str


_GLOBAL = {
    "volume": Wording("Brain volume", "ml", "a child, or brain lost in skull-stripping?", "skull not removed?"),
    "width": Wording("Brain width", "mm", "image cut off, or a child?", "skull not removed, or wrong orientation?"),
    "depth": Wording("Brain length", "mm", "image cut off, or a child?", "skull not removed, or wrong orientation?"),
    "height": Wording("Brain height", "mm", "image cut off, or a child?", "neck not removed, or wrong orientation?"),
    "fill": Wording(
        "Share of its bounding box that the brain fills",
        "",
        "specks outside the brain, or holes in it?",
        "image cut off, or skull not removed?",
    ),
    "scattered": Wording(
        "Volume of bright spots far from the main lesion",
        "ml",
        "a different background?",
        "several lesions, such as metastases or white-matter disease?",
    ),
}
_OF_MODALITY = {
    "level": Wording(
        "median signal", "log10", "another scanner, or rescaled images?", "another scanner, or rescaled images?"
    ),
    "bright": Wording(
        "brightest signal", "times the median", "clipped or little contrast?", "artefacts, or strong enhancement?"
    ),
    "dark": Wording("darkest signal", "times the median", "different masking of fluid?", "little contrast?"),
    "noise": Wording("noise", "standard deviations", "smoothed or resampled images?", "noise or motion?"),
    "rim": Wording(
        "signal at the brain's edge", "times the median", "different skull-stripping?", "scalp or skull not removed?"
    ),
    "cover": Wording(
        "share of the brain with signal", "", "part of the brain is missing?", "different masking of the images?"
    ),
}
DISTANCE = Wording(
    "Distance of the network's features from training", "", "", "anatomy or images unlike those of the training?"
)


def wording(name: str) -> Wording:
    """What a statistic is called.

    Args:
        name: as `image_statistics` has it; an unknown one keeps its name.
    """
    modality, _, rest = name.partition("_")
    if modality in MODALITIES and rest in _OF_MODALITY:
        of_modality = _OF_MODALITY[rest]
        return of_modality._replace(name=f"{TITLES[modality]}: {of_modality.name}")
    return _GLOBAL.get(name) or Wording(name.replace("_", " "), "", "", "")


def out_of_range(name: str, value: float, low: float, high: float) -> str:
    """A phrase on a statistic outside its usual range: `T1: noise is lower than in training (0.1, usual 0.2 to 1)`.

    Args:
        name: as `image_statistics` has it.
        value: of the patient; may be NaN.
        low: of the usual range.
        high: the other end.
    """
    words = wording(name)
    usual = f"{value:.3g}, usual {low:.3g} to {high:.3g}" + (f" {words.unit}" if words.unit else "")
    if isnan(value):
        return f"{words.name} cannot be measured ({usual})"
    much = "much " if max(low - value, value - high) > FAR * (high - low) else ""
    return f"{words.name} is {much}{'lower' if value < low else 'higher'} than in training ({usual})"


def likely_cause(name: str, value: float, low: float) -> str:
    """What a value outside its usual range may come from, as a question; empty where that is not known."""
    words = wording(name)
    return words.low if value < low else words.high
