"""What is known of one patient after a prediction."""

from __future__ import annotations

from pydantic import Field

from toolkit.frozen import Frozen


class Seconds(Frozen):
    """What one patient took: reading with preprocessing, and its share of the batch."""

    read: float
    infer: float


class Record(Frozen):
    """One patient's result.

    Attributes:
        patient: id.
        folder: where the images were.
        grade: `LGG` or `HGG`; None when refused.
        probability: calibrated P(HGG); None when refused.
        threshold: HGG is decided from here on.
        verdict: `single grade`, `uncertain`, `unfamiliar` or `undetermined`, see `verdict.py`; None when refused.
        explanation: why the verdict is not a single grade; else empty.
        grades: that are possible at the model's conformal rate.
        distance: of the network's features from the training patients'; None when refused or not known.
        outside: names of those `statistics` that are out of the model's bounds.
        statistics: of the images, see `toolkit.data.statistics`; empty when refused.
        reason: why it was refused; empty when it was graded.
        notes: oddities that were accepted.
        runtime: what answered, such as `onnx fp32 cpu`.
        engine: SHA-256 of the file that answered; empty when refused before.
        missing: the modality that the patient lacked; empty where none.
        inputs: SHA-256 of the files, see `hash_inputs` in audit.py; empty when they could not be read.
        seconds: see `Seconds`.
    """

    patient: str
    folder: str
    grade: str | None = None
    probability: float | None = Field(None, ge=0, le=1)
    threshold: float
    verdict: str | None = None
    explanation: str = ""
    grades: tuple[str, ...] = ()
    distance: float | None = None
    outside: tuple[str, ...] = ()
    statistics: dict[str, float] = Field(default_factory=dict)
    reason: str = ""
    notes: tuple[str, ...] = ()
    runtime: str
    engine: str = ""
    inputs: str = ""
    missing: str = ""
    seconds: Seconds
