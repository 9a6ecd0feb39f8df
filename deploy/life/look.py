"""Patients as a model sees them: logit, features, image statistics and the images' digest, each by fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from deploy.model.folder import Model
from deploy.model.origin import People
from deploy.predict.reader import Wanted, reader
from deploy.runtime import Array, Runtime
from toolkit.data.content import salted
from toolkit.data.patients import Patient, printable
from toolkit.machine import most_readers


class Looked(NamedTuple):
    """One patient.

    Attributes:
        patient: id and folder.
        logit: HGG minus LGG.
        features: float32 (F,).
        statistics: of the images.
        content: digest of the images.
        scan: float32 (4, X, Y, Z); None unless it was asked for.
    """

    patient: Patient
    logit: float
    features: Array
    statistics: dict[str, float]
    content: str
    scan: Array | None


class Refused(NamedTuple):
    """A patient who cannot be read, and why."""

    patient: str
    reason: str


def look(
    model: Model, runtime: Runtime, patients: Sequence[Patient], keep: int, on_done: Callable[[object], None]
) -> tuple[list[Looked], list[Refused]]:
    """Read patients and run the network on each.

    Args:
        model: whose grid counts.
        runtime: in fp32.
        patients: whom to read, in this order.
        keep: of so many the scan is kept, for a comparison of runtimes.
        on_done: called after each patient.
    """
    seen: list[Looked] = []
    refused: list[Refused] = []
    with (
        threadpool_limits(1, user_api="blas"),
        reader(patients, Wanted(model.manifest.grid), most_readers()) as reads,
    ):
        while (read := reads.take()) is not None:
            scan = read.scan
            if scan is None:
                refused.append(Refused(printable(read.patient.id), read.reason))
            else:
                outputs = runtime.infer(scan.data[None])
                kept = scan.data if len(seen) < keep else None
                logit = float(outputs.logit[0])
                seen.append(Looked(read.patient, logit, outputs.features[0], scan.statistics, scan.content, kept))
            on_done(read)
    return seen, refused


def known_among(people: People, seen: Iterable[Looked]) -> list[str]:
    """Ids of the patients whose images are among some people's, in their order."""
    digests = set(people.digests)
    return [printable(one.patient.id) for one in seen if digests.intersection(salted(people.salt, [one.content]))]
