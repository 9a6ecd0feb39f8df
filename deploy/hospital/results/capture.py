"""The answer as a picture that every viewer shows (Secondary Capture), and the same sheet drawn for a document."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from highdicom.sc import SCImage
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydicom.dataset import Dataset

from deploy.hospital.results.identity import (
    MANUFACTURER,
    MODEL_NAME,
    RESEARCH,
    Answer,
    complete_head,
    keep_characters,
    plain,
)
from deploy.hospital.results.pictures import Level, Rgb
from toolkit.data.patients import MODALITIES

SERIES = 9803
SIZE = (9.0, 12.0)  # inches at DPI pixels each
DPI = 100
_TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1 with contrast", "t2": "T2"}
_AMBER, _WHITE, _GREY = "#ffb000", "#ffffff", "#b8b8b8"
_COLUMNS = 92  # characters of a line of text


def build_capture(answer: Answer, levels: Sequence[Level]) -> Dataset:
    """One RGB image with the answer, the key pictures and "research use" burnt in, and no name.

    Args:
        answer: of a graded or a refused study.
        levels: key pictures; none of a refused study.

    Returns:
        The object, in explicit VR little endian.
    """
    head = complete_head(answer.images[0])
    image: Dataset = SCImage.from_ref_dataset(
        ref_dataset=head,
        pixel_array=_pixels(draw_sheet(answer, levels)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        series_instance_uid=answer.uid("sc", "series"),
        series_number=SERIES,
        sop_instance_uid=answer.uid("sc", "instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=answer.version,
        device_serial_number=answer.model[:12],
        series_description=f"Glioma grading picture ({answer.use})",
    )
    image.Modality = "OT"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.ConversionType = "WSD"
    image.BodyPartExamined = "BRAIN"
    image.BurnedInAnnotation = "NO"  # it asks for what tells who the patient is: there is none
    image.RecognizableVisualFeatures = "NO"  # the brain alone, without the face
    return keep_characters(image, answer.images[0])


def draw_sheet(answer: Answer, levels: Sequence[Level]) -> Figure:
    """The answer on one sheet, white on black as in a reading room."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="black")
    title = f"GLIOMA GRADING - {answer.use}{'' if answer.origin else ' ONLY'}"
    figure.text(0.04, 0.965, title, color=_AMBER, size=17, weight="bold", va="top")
    under = f"{answer.origin} Not a medical device. Preliminary, not verified.".strip()
    figure.text(0.04, 0.937, under, color=_AMBER, size=11, va="top")
    _draw_answer(figure, answer)
    for row, level in enumerate(levels):
        _draw_level(figure, level, 0.505 - 0.222 * row)
    foot = f"grade {answer.version}, model {answer.model[:12]}, {plain(answer.record.runtime)}"
    figure.text(0.04, 0.018, foot, color=_GREY, size=8)
    figure.text(0.96, 0.018, RESEARCH, color=_AMBER, size=8, ha="right")
    return figure


def _draw_answer(figure: Figure, answer: Answer) -> None:
    record = answer.record
    if record.grade is None or record.probability is None:
        figure.text(0.04, 0.905, "NOT GRADED", color=_WHITE, size=22, weight="bold", va="top")
        sentences = ["The study was refused. This says nothing about the patient.", f"Reason: {record.reason}"]
    else:
        headline = f"{record.grade}   P(HGG) {record.probability:.3f}   verdict: {record.verdict}"
        figure.text(0.04, 0.905, headline, color=_WHITE, size=22, weight="bold", va="top")
        axes = figure.add_axes((0.04, 0.838, 0.92, 0.022), facecolor="#303030")
        _draw_scale(axes, record.probability, record.threshold)
        possible = f"Possible at the model's error rate: {', '.join(record.grades)}." if record.grades else ""
        sentences = [f"HGG is decided from {record.threshold:.3f}. {possible}", record.explanation, *record.notes]
    lines = [line for text in sentences if text for line in textwrap.wrap(plain(text), _COLUMNS)]
    shown = lines if len(lines) <= 7 else [*lines[:6], "... (the whole text is in the structured report)"]
    figure.text(0.04, 0.805, "\n".join(shown), color=_WHITE, size=10.5, va="top", linespacing=1.3)


def _draw_scale(axes: Axes, probability: float, threshold: float) -> None:
    axes.barh(0, probability, height=2, color="#d0d0d0")
    axes.axvline(threshold, color=_AMBER, linewidth=2.5)
    axes.set(xlim=(0, 1), ylim=(-1, 1), yticks=[], xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.tick_params(colors=_GREY, labelsize=8)


def _draw_level(figure: Figure, level: Level, bottom: float) -> None:
    figure.text(0.04, bottom + 0.193, f"Axial, {level.caption}", color=_GREY, size=9, va="bottom")
    for column, name in enumerate(MODALITIES):
        axes = figure.add_axes((0.04 + 0.232 * column, bottom, 0.224, 0.186), facecolor="black")
        axes.imshow(level.tiles[name], interpolation="bilinear", aspect="equal")
        axes.set_axis_off()
        axes.text(0.02, 0.98, _TITLES[name], color=_WHITE, size=8, va="top", transform=axes.transAxes)
        axes.text(0.0, 0.5, "R", color=_GREY, size=8, va="center", transform=axes.transAxes)


def _pixels(figure: Figure) -> Rgb:
    stream = io.BytesIO()
    figure.savefig(stream, format="rgba", facecolor=figure.get_facecolor())
    width, height = (round(length * DPI) for length in SIZE)
    pixels = np.frombuffer(stream.getvalue(), np.uint8).reshape(height, width, 4)
    return np.ascontiguousarray(pixels[..., :3])
