"""One page for each patient, an index, and evidence maps: what a clinician reads. With `--report` only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from deploy.model.folder import Model
from deploy.model.manifest import Manifest
from deploy.predict.grader import Seen
from deploy.predict.verdict import SINGLE, single_grades, wrong_before
from deploy.report.evidence import CUBE, STEP, Occlusion, between, occlude, write_evidence, write_own
from deploy.report.index import write_index
from deploy.report.pictures import Scene, draw_probability, slices
from deploy.report.region import Native, Region, box_affine, find_region, full_scale, own_affine
from deploy.report.viewer import (
    GREYS,
    GREYS_SINGLE,
    LICENCE,
    NIIVUE,
    NIIVUE_VERSION,
    Packed,
    grey,
    licence,
    niivue,
    niivue_inline,
    pack,
    pack_evidence,
    pack_mask,
)
from deploy.results.names import ASSETS, INDEX, PATIENTS, map_of, own_map_of, page_of, unwritable
from deploy.results.record import Record
from deploy.runtime import Array
from toolkit.data.patients import Patient
from toolkit.data.reading.door import Images, Reading, open_patient
from toolkit.data.reading.header import Affine
from toolkit.data.scan import Scan
from toolkit.data.wording import DISTANCE, TITLES, Wording, likely_cause, out_of_range, wording
from toolkit.evaluation.pages.drawing import svg
from toolkit.evaluation.pages.page import render
from toolkit.files import write_file


class Row(NamedTuple):
    """A statistic as the page shows it; `sentence` is empty where it is within its range or none is known."""

    name: str
    words: Wording
    key: str
    value: float | None
    low: float | None
    high: float | None
    limit: str
    sentence: str


class Heads(NamedTuple):
    """A patient's modalities in grey levels, with what is white at first; and as the viewer takes them."""

    shown: dict[str, tuple[NDArray[np.uint8], float]]
    packed: dict[str, Packed]


class Pages:
    """Writes `patients/<id>.html` and two maps in `evidence/` as patients are graded, and `report.html` at the end.

    Args:
        folder: of the results.
        model: whose limits and reference distribution the pages show.
        single_file: whether each page holds the viewer, too, so that it can be sent alone.
    """

    def __init__(self, folder: Path, model: Model, single_file: bool = False) -> None:
        self._folder, self._model = folder, model
        self._inline = niivue_inline() if single_file else ""
        self._levels = GREYS_SINGLE if single_file else GREYS
        self._scale = full_scale(model.manifest)

    def lacks(self, record: Record) -> bool:
        """Whether a patient's page or a map is missing."""
        return not all(of(self._folder, record.patient).is_file() for of in (page_of, map_of, own_map_of))

    def add(self, record: Record, seen: Seen) -> None:
        """Write one patient's page and maps.

        Raises:
            GradeError: they cannot be written.
            PatientRefused: the images changed since they were graded.
        """
        manifest = self._model.manifest.lacking(record.missing)
        with ThreadPoolExecutor(2) as pool:  # what needs no map is made while the runtime answers
            facts, opened = pool.submit(self._facts, record), pool.submit(self._opened, seen.patient)
            found = occlude(seen.runtime, seen.scan.data, manifest.grid.spacing, seen.batch_size)
            images, heads = opened.result()
        native = found.on(box_affine(images), seen.scan.affine, images.mask.shape)
        region = find_region(seen, found, (images, native), manifest)
        try:
            for folder in (self._folder / PATIENTS, self._folder / ASSETS, own_map_of(self._folder, "").parent):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self._folder, error) from error
        self._write_maps(record, found.on_scan(), seen.scan.affine, (images, native))
        if not self._inline and not (self._folder / ASSETS / NIIVUE).is_file():
            write_file(self._folder / ASSETS / LICENCE, licence())
            write_file(self._folder / ASSETS / NIIVUE, niivue())
        pictured = self._pictured(seen.scan, found, (images, native), region, heads)
        content = {**facts.result(), **pictured, "region": region}
        write_file(page_of(self._folder, record.patient), render("patient.html", "deploy.report", **content))

    def index(self, records: Sequence[Record]) -> Path:
        """Write the index of all patients, the refused among them, and the order that the pages step through."""
        write_index(self._folder, records, self._model)
        return self._folder / INDEX

    def _write_maps(self, record: Record, evidence: Array, affine: Affine, own: Native) -> None:
        images, native = own
        write_evidence(map_of(self._folder, record.patient), evidence, affine)
        whole = np.zeros(images.shape, np.float32)
        whole[images.box] = native * images.mask
        write_own(own_map_of(self._folder, record.patient), whole, images.affine, own_affine(images.files["flair"]))

    def _facts(self, record: Record) -> dict[str, Any]:
        """What the page says in words and numbers."""
        manifest = self._model.manifest.lacking(record.missing)
        singles = single_grades(manifest).get(record.grade or "")
        rows = _rows(record, manifest)
        picture = partial(draw_probability, record=record, reference=manifest.reference)
        now = datetime.now(UTC)
        return {
            "name": record.patient,
            "kind": "Prediction report",
            "footing": f"{now:%Y-%m-%d} · model {self._model.fingerprint[:12]}",
            "synthetic": manifest.training.synthetic,
            "notes": (),
            "index": "" if self._inline else f"../{INDEX}",
            "record": record,
            "manifest": manifest,
            "fingerprint": self._model.fingerprint,
            "single": record.verdict == SINGLE,
            "worth": wrong_before(record.grade, singles) if singles and record.grade else "",
            "outside": [row for row in rows if row.sentence],
            "inside": [row for row in rows if not row.sentence],
            "picture": svg(picture, _alt(record), (6.4, 1.9)),
            "map": f"../{map_of(self._folder, record.patient).relative_to(self._folder).as_posix()}",
            "own_map": f"../{own_map_of(self._folder, record.patient).relative_to(self._folder).as_posix()}",
            "written": now.isoformat(timespec="seconds"),
        }

    def _opened(self, patient: Patient) -> tuple[Images, Heads]:
        """The patient's images, in grey levels and as the viewer takes them."""
        images = open_patient(patient, Reading(optional=self._model.optional))
        affine = box_affine(images)
        with ThreadPoolExecutor(len(TITLES)) as pool:  # both leave Python's lock
            shown = dict(zip(TITLES, pool.map(lambda name: grey(images, name, self._levels), TITLES), strict=True))
            packed = pool.map(lambda name: pack(shown[name][0], affine), TITLES)
            return images, Heads(shown, dict(zip(TITLES, packed, strict=True)))

    def _pictured(
        self, scan: Scan, found: Occlusion, own: Native, region: Region | None, heads: Heads
    ) -> dict[str, Any]:
        """The still pictures, and what the viewer shows."""
        images, native = own
        shape = images.mask.shape
        outlined = region.mask if region else np.zeros(shape, np.bool_)
        voxel = region.voxel if region else tuple(size // 2 for size in shape)
        evidence = pack_evidence(between(found.lost, found.centres, scan.data.shape[1:]), scan.affine)
        still = Scene(
            heads.shown,
            native,
            images.mask,
            images.edges,
            self._scale,
            outlined,
        )
        scene = {
            "niivue": bool(self._inline),
            "shape": shape,
            "voxel": voxel,
            "scale": self._scale,
            "levels": self._levels,
            "evidence": evidence.head,
            "images": {name: {"head": one.head, "white": heads.shown[name][1]} for name, one in heads.packed.items()},
        }
        return {
            "titles": TITLES,
            "slices": slices(still, voxel),
            "scene": Markup(json.dumps(scene, allow_nan=False).replace("<", "\\u003c")),  # noqa: S704 - no markup in it
            "packed": heads.packed,
            "packed_evidence": evidence,
            "packed_region": pack_mask(outlined),
            "inline": self._inline,
            "licence": licence(),
            "niivue_version": NIIVUE_VERSION,
            "scale": self._scale,
            "cube": CUBE,
            "step": STEP,
            "levels": self._levels,
            "voxel_size": " x ".join(f"{edge:.3g}" for edge in images.edges),
        }


def _rows(record: Record, manifest: Manifest) -> list[Row]:
    """The distance of the features, then each image statistic."""
    familiarity = manifest.out_of_distribution
    bounds = {bound.name: bound for bound in familiarity.bounds}
    limit = familiarity.distance
    far = record.distance is None or (limit is not None and record.distance > limit)
    said = f"{DISTANCE.name} is larger than usual: {DISTANCE.high}" if far and limit is not None else ""
    rows = [Row("distance", DISTANCE, "distance", record.distance, None, limit, "limit.distance", said)]
    for name, value in record.statistics.items():
        bound = bounds.get(name)
        low, high = (bound.low, bound.high) if bound else (None, None)
        sentence = ""
        if bound and name in record.outside:
            said = out_of_range(name, value, bound.low, bound.high)
            sentence = f"{said}: {likely_cause(name, value, bound.low)}".removesuffix(": ")
        rows.append(Row(name, wording(name), f"statistics.{name}", value, low, high, f"limit.high.{name}", sentence))
    return rows


def _alt(record: Record) -> str:
    return (
        f"Probability {record.probability:.3f} against the threshold {record.threshold:.3f} and the validation"
        " patients, LGG below and HGG above."
    )
