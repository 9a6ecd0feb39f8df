"""One page for each patient, an index, and evidence maps: what a clinician reads. With `--report` only."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.image import imsave

from deploy.model.folder import Model
from deploy.predict.grader import Seen
from deploy.report.evidence import CUBE, STEP, occlusion, write_evidence
from deploy.results.names import EVIDENCE, INDEX, PATIENTS, file_name, map_of, page_of, unwritable
from deploy.results.record import Record
from deploy.runtime import Array
from toolkit.data.patients import CLASSES, MODALITIES
from toolkit.evaluation.pages.pictures import FIRST, INK, SECOND, svg
from toolkit.files import write_file

GREYS = (0.5, 99.5)  # percentiles of the slice's brain that become black and white
OPACITY = 0.65  # of the strongest evidence in the slice
TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1 with contrast", "t2": "T2"}


class Slice(NamedTuple):
    """The axial slice of strongest evidence.

    Attributes:
        z: its index in the scan.
        position: (x, y, z) in mm of the strongest voxel, the patient's space.
        images: modality -> PNG as a data address.
        overlay: likewise, transparent where there is no evidence.
    """

    z: int
    position: tuple[float, float, float]
    images: dict[str, str]
    overlay: str


class Pages:
    """Writes `patients/<id>.html` and `evidence/<id>.nii.gz` as patients are graded, and `report.html` at the end.

    Args:
        folder: of the results.
        model: whose limits and reference distribution the pages show.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        self._folder, self._model = folder, model
        self._pages = _environment()

    def lacks(self, record: Record) -> bool:
        """Whether a patient's page or map is missing."""
        return not all(file(self._folder, record.patient).is_file() for file in (page_of, map_of))

    def add(self, record: Record, seen: Seen) -> None:
        """Write one patient's page and map.

        Raises:
            GradeError: they cannot be written.
        """
        manifest = self._model.manifest
        evidence = occlusion(seen.runtime, seen.scan.data, manifest.grid.spacing, seen.batch_size)
        name = file_name(record.patient)
        try:
            for folder in (PATIENTS, EVIDENCE):
                (self._folder / folder).mkdir(exist_ok=True)
            write_evidence(map_of(self._folder, record.patient), evidence, seen.scan.affine)
        except OSError as error:
            raise unwritable(self._folder, error) from error
        picture = partial(draw_probability, record=record, reference=manifest.reference)
        content = {
            "record": record,
            "manifest": manifest,
            "fingerprint": self._model.fingerprint,
            "slice": strongest_slice(seen.scan.data, evidence, record.grade == CLASSES[1], seen.scan.affine),
            "titles": TITLES,
            "picture": svg(picture, _alt(record), (6.4, 1.9)),
            "bounds": {b.name: b for b in manifest.out_of_distribution.bounds} if manifest.out_of_distribution else {},
            "map": f"../{EVIDENCE}/{name}.nii.gz",
            "cube": CUBE,
            "step": STEP,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        page = self._pages.get_template("patient.html").render(content)
        write_file(page_of(self._folder, record.patient), page)

    def index(self, records: Sequence[Record]) -> Path:
        """Write the index of all patients, the refused among them."""
        pages = {r.patient: f"{PATIENTS}/{file_name(r.patient)}.html" for r in records if r.grade is not None}
        # Whoever was kept from an earlier call may have been graded without a page.
        links = {patient: page for patient, page in pages.items() if (self._folder / page).is_file()}
        page = self._pages.get_template("index.html").render(
            records=records, links=links, manifest=self._model.manifest, fingerprint=self._model.fingerprint
        )
        write_file(self._folder / INDEX, page)
        return self._folder / INDEX


def strongest_slice(scan: Array, evidence: Array, hgg: bool, affine: np.ndarray[Any, Any]) -> Slice:
    """Where the evidence for the decided grade is strongest inside the brain.

    Args:
        scan: float32 (4, X, Y, Z), 0 outside the brain.
        evidence: float32 (X, Y, Z), for HGG where positive.
        hgg: whether HGG was decided.
        affine: (4, 4), voxel to mm.
    """
    brain = (scan != 0).any(axis=0)
    own = np.where(brain, evidence if hgg else -evidence, -np.inf)
    place = np.unravel_index(int(own.argmax()), own.shape)
    z = int(place[2])
    x, y, height = (float(value) for value in (affine @ [*place, 1])[:3])
    images = {name: _png(_grey(scan[channel, :, :, z], brain[:, :, z])) for channel, name in enumerate(MODALITIES)}
    return Slice(z, (x, y, height), images, _png(_overlay(evidence[:, :, z], brain[:, :, z])))


def draw_probability(figure: Figure, record: Record, reference: dict[str, tuple[float, ...]]) -> None:
    """The patient's probability on a line with the threshold and the validation patients of either grade."""
    axes = figure.add_subplot(xlabel=f"probability of {CLASSES[1]}")
    for row, (name, colour) in enumerate(zip(CLASSES, (FIRST, SECOND), strict=True)):
        values = np.array(reference.get(name, ()))
        lift = np.random.default_rng(0).uniform(-0.22, 0.22, len(values))  # so that equal ones are seen
        axes.plot(values, row + lift, "o", color=colour, alpha=0.55, markersize=5, clip_on=False)
    axes.axvline(record.threshold, color=INK, linestyle=":", alpha=0.7)
    if record.probability is not None:
        axes.axvline(record.probability, color=INK, linewidth=2.5)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.6, len(CLASSES) - 0.4), yticks=range(len(CLASSES)), yticklabels=CLASSES)
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)


def _alt(record: Record) -> str:
    return (
        f"Probability {record.probability:.3f} against the threshold {record.threshold:.3f} and the validation"
        " patients, LGG below and HGG above."
    )


def _number(value: float | None, key: str, digits: int = 3) -> Markup:
    """A number of the record: shown rounded, its full value and its name beside it for programs."""
    if value is None:
        return Markup("undefined")
    return Markup('<data value="{}" data-key="{}">{}</data>').format(repr(value), key, f"{value:.{digits}f}")


def _grey(plane: Array, brain: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(X, Y) z-scores to RGBA, black outside the brain."""
    low, high = np.percentile(plane[brain], GREYS) if brain.any() else (0.0, 1.0)
    shades = np.where(brain, np.clip((plane - low) / max(high - low, 1e-6), 0, 1), 0)
    return np.asarray(colormaps["gray"](shades))


def _overlay(plane: Array, brain: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(X, Y) evidence to RGBA: warm for HGG, blue for LGG, the stronger the less transparent."""
    size = np.abs(plane) / max(float(np.abs(plane[brain]).max(initial=0)), 1e-6)
    colours = np.where((plane > 0)[..., None], (1.0, 0.45, 0.1, 0.0), (0.2, 0.55, 1.0, 0.0))
    colours[..., 3] = np.where(brain, OPACITY * np.clip(size, 0, 1) ** 2, 0)
    return colours


def _png(rgba: np.ndarray[Any, Any]) -> str:
    """(X, Y, 4) in RAS as radiologists look at it: the front above, the patient's right on the left."""
    stream = io.BytesIO()
    imsave(stream, np.ascontiguousarray(rgba[::-1, ::-1].transpose(1, 0, 2)), format="png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _environment() -> Environment:
    places = [Path(str(files("deploy.report"))), Path(str(files("toolkit.evaluation.pages")))]
    pages = Environment(
        loader=FileSystemLoader(places),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(number=_number, soft=lambda text: Markup("<wbr>").join(escape(p) for p in _pieces(str(text))))
    return pages


def _pieces(text: str) -> list[str]:
    return [text[start : start + 16] for start in range(0, len(text), 16)]
