"""Does the exported model make the same decisions as the trained network? The gate at export."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from deploy.extremes import Together, extreme_scans, together
from deploy.lanes import Lanes
from deploy.model.folder import Draft, Precision
from deploy.model.manifest import Comparison, ParityReport
from deploy.runtime import Array, Runtime, RuntimeOutputs, label
from deploy.selftest import LIMITS, finite, probability
from toolkit.config import Grid
from toolkit.data.patients import CLASSES, Cohort
from toolkit.errors import ModelError
from toolkit.evaluation.calibration import Calibration

MAX_PATIENTS = 64
# Of features, evidence and an extreme scan's logits, as a share of the largest value: those logits run into thousands.
SHARES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
_KEPT = 2  # patients that share batches


class _Tally:
    """What one candidate's answers come to; `add` raises nothing, `failures` says what is too much."""

    def __init__(self, runtime: Runtime, calibration: Calibration) -> None:
        self.runtime, self.calibration = runtime, calibration
        self.label = label(runtime)
        self.limit, self.share = LIMITS[runtime.precision], SHARES[runtime.precision]
        self.difference = self.logit_difference = self.map_difference = self.extremes_difference = 0.0
        self.flips = 0
        self.alone: list[float] = []  # the probability of each scan that batches are made of
        self.overflows: list[str] = []
        self.failures: list[str] = []

    def patient(self, name: str, wanted: RuntimeOutputs, found: RuntimeOutputs, keep: bool) -> None:
        if not finite(found):
            self.failures.append(f"{name} gives values that are not finite")
            return
        p, q = probability(wanted, self.calibration)[0], probability(found, self.calibration)[0]
        if keep:
            self.alone.append(float(q))
        if abs(p - q) > self.limit:
            self.failures.append(f"{name} differs by {abs(p - q):.2g} in probability, more than {self.limit:g}")
        share = max(_share(wanted.features, found.features), _share(wanted.evidence, found.evidence))
        if share > self.share:
            self.failures.append(f"{name} differs by {share:.2g} in features or evidence, more than {self.share:g}")
        self.flips += (p >= self.calibration.threshold) != (q >= self.calibration.threshold)
        self.difference = max(self.difference, abs(p - q))
        self.logit_difference = max(self.logit_difference, float(np.abs(wanted.logits - found.logits).max()))
        self.map_difference = max(self.map_difference, share)

    def alike(self, order: Sequence[int], found: RuntimeOutputs, batch: int) -> None:
        """Kept scans answered in a batch, as they were alone."""
        if not finite(found):
            self.failures.append(f"a batch of {batch} gives values that are not finite")
            return
        off = float(np.abs(probability(found, self.calibration) - [self.alone[k] for k in order]).max())
        if off > self.limit:
            self.failures.append(f"a batch of {batch} differs by {off:.2g} in probability from single scans")

    def batch(self, batch: Together, found: RuntimeOutputs, wanted: Sequence[tuple[str, RuntimeOutputs]]) -> None:
        """Kept scans and extreme ones that were answered together; `wanted` has the name and the reference's answer."""
        count = len(batch.first)
        if count:
            self.alike(batch.first, _rows(found, 0, count), batch.size)
        for row, number in enumerate(batch.extremes, start=count):
            self.extreme(f"the scan '{wanted[number][0]}'", wanted[number][1], _rows(found, row, row + 1))

    def extreme(self, name: str, wanted: RuntimeOutputs, found: RuntimeOutputs) -> None:
        if not finite(found):
            if self.runtime.precision == "fp16":
                self.overflows.append(name)  # prediction sees that as well, and answers in fp32
            else:
                self.failures.append(f"{name} gives values that are not finite")
            return
        difference = float(np.abs(probability(wanted, self.calibration) - probability(found, self.calibration)).max())
        if difference > self.limit and _share(wanted.logits, found.logits) > self.share:
            self.failures.append(f"{name} differs by {difference:.2g} in probability, more than {self.limit:g}")
        self.extremes_difference = max(self.extremes_difference, difference)

    def comparison(self) -> Comparison:
        return Comparison(
            runtime=self.label,
            limit=self.limit,
            difference=self.difference,
            logit_difference=self.logit_difference,
            map_difference=self.map_difference,
            flips=self.flips,
            extremes_difference=self.extremes_difference,
            overflows=tuple(self.overflows),
        )


class Asked(NamedTuple):
    """What the reference and the candidates were asked about a scan."""

    scan: Array
    wanted: Future[RuntimeOutputs]
    found: list[Future[RuntimeOutputs]]


class Extreme(NamedTuple):
    """A scan beyond what a patient gives, and what the reference says of it.

    Attributes:
        name: for a sentence.
        scan: float32 (4, X, Y, Z).
        wanted: the reference's answer.
    """

    name: str
    scan: Array
    wanted: Future[RuntimeOutputs]


def ask_extremes(grid: Grid, reference: Runtime, lanes: Lanes) -> list[Extreme]:
    """Let the reference begin with the extreme scans: it needs neither patients nor candidates for them."""
    return [Extreme(name, scan, lanes.answer(reference, scan[None])) for name, scan in extreme_scans(grid)]


class Gate:
    """Compares runtimes with the reference on patients, on extreme scans and in batches of both.

    On patients the probability may differ by 1e-4 (fp32) or 5e-3 (fp16), so no decision can change that is further from
    the threshold than that. On an extreme scan, such as no patient gives, the logits may instead differ by a small
    share of their size; a scan that fp16 cannot represent is recorded, since prediction answers it in fp32. In a batch,
    next to an extreme scan, a patient must be answered as alone.

    Args:
        model: whose calibration and grid count.
        reference: torch in float32.
        candidates: the runtimes to be judged.
        lanes: where those on the processor answer.
        extremes: of `ask_extremes`.
    """

    def __init__(
        self,
        model: Draft,
        reference: Runtime,
        candidates: Sequence[Runtime],
        lanes: Lanes,
        extremes: Sequence[Extreme],
    ) -> None:
        self._model, self._reference, self._lanes, self._extremes = model, reference, lanes, extremes
        self._tallies = [_Tally(candidate, model.manifest.calibration) for candidate in candidates]
        self._kept: list[Array] = []
        self._patients = 0

    def ask(self, scan: Array) -> Asked:
        """Let reference and candidates begin with a patient.

        Args:
            scan: float32 (4, X, Y, Z).

        Returns:
            What `patient` takes.
        """
        batch = scan[None]  # (1, 4, X, Y, Z)
        wanted = self._lanes.answer(self._reference, batch)
        return Asked(scan, wanted, [self._lanes.answer(tally.runtime, batch) for tally in self._tallies])

    def patient(self, name: str, asked: Asked) -> list[RuntimeOutputs]:
        """Compare on a patient.

        Args:
            name: for a sentence.
            asked: of `ask`.

        Returns:
            The candidates' answers.

        Raises:
            ModelError: the reference is not finite.
        """
        wanted = _finite(asked.wanted.result(), name)
        answers = [found.result() for found in asked.found]
        keep = len(self._kept) < _KEPT
        for tally, found in zip(self._tallies, answers, strict=True):
            tally.patient(f"patient {name}", wanted, found, keep)
        if keep:
            self._kept.append(asked.scan)
        self._patients += 1
        return answers

    def report(self, validation: int) -> ParityReport:
        """Compare on extreme scans and in batches, and judge.

        Args:
            validation: how many validation patients there are, of whom those compared may be a part.

        Raises:
            ModelError: no patient, the reference is not finite, or a candidate differs by more than it may.
        """
        if not self._patients:
            raise ModelError("the parity gate needs at least one validation patient; there is none.")
        asked = [
            (tally, batch, self._lanes.ask(tally.runtime, self._together, tally.runtime, batch))
            for tally in self._tallies
            if not tally.failures  # where a patient has failed there is nothing more to see
            for batch in self._batches(tally)
        ]
        wanted = [(one.name, _finite(one.wanted.result(), one.name)) for one in self._extremes]
        for tally, batch, found in asked:
            tally.batch(batch, found.result(), wanted)
        sizes = {batch.size for _, batch, _ in asked}
        failures = [f"{tally.label}: {failure}" for tally in self._tallies for failure in tally.failures]
        if failures:
            more = f" (and {len(failures) - 3} more)" if len(failures) > 3 else ""
            raise ModelError(
                f"the exported model does not decide like the trained one: {'; '.join(failures[:3])}{more}."
            )
        return ParityReport(
            patients=self._patients,
            validation=validation,
            extremes=tuple(one.name for one in self._extremes),
            batches=tuple(sorted({1, *sizes})),
            comparisons=tuple(tally.comparison() for tally in self._tallies),
        )

    def _together(self, runtime: Runtime, batch: Together) -> RuntimeOutputs:
        """The batch is put together when its turn comes: one of eight scans takes 177 MB."""
        return runtime.infer(batch.scans(self._kept, [one.scan for one in self._extremes]))

    def _batches(self, tally: _Tally) -> list[Together]:
        most, on_card = self._model.manifest.max_batch, tally.runtime.device != "cpu"
        return together(len(self._kept), len(self._extremes), most, on_card)


def check_parity(
    model: Draft, reference: Runtime, candidates: Sequence[Runtime], scans: Iterable[tuple[str, Array]], validation: int
) -> ParityReport:
    """Compare runtimes with the reference; see `Gate`.

    Args:
        model: whose calibration and grid count.
        reference: torch in float32.
        candidates: the runtimes to be judged.
        scans: name and float32 (4, X, Y, Z) of real patients, at least one; read one at a time.
        validation: how many validation patients there are, of whom `scans` may be a part.

    Raises:
        ModelError: as `Gate.patient` and `Gate.report`.
    """
    with Lanes(1) as lanes:  # these runtimes have all cores each
        gate = Gate(model, reference, candidates, lanes, ask_extremes(model.manifest.grid, reference, lanes))
        for name, scan in scans:
            gate.patient(name, gate.ask(scan))
        return gate.report(validation)


def choose_patients(cohort: Cohort, most: int = MAX_PATIENTS) -> Cohort:
    """At most so many patients, as evenly from both grades as there are, spread over the cohort's order."""
    lgg, hgg = (np.flatnonzero(cohort.grade_array == grade) for grade in range(len(CLASSES)))
    from_lgg = min(len(lgg), max(most // 2, most - len(hgg)))
    from_hgg = min(len(hgg), most - from_lgg)
    chosen = [
        int(found[round(k)])
        for found, share in ((lgg, from_lgg), (hgg, from_hgg))
        for k in np.linspace(0, max(len(found) - 1, 0), share)
    ]
    return cohort.select(sorted(chosen))


def _finite(wanted: RuntimeOutputs, name: str) -> RuntimeOutputs:
    if not finite(wanted):
        raise ModelError(f"the trained network's own answer to {name} is not finite; train again.")
    return wanted


def _rows(outputs: RuntimeOutputs, start: int, stop: int) -> RuntimeOutputs:
    """The answers to some scans of a batch, as a batch."""
    return RuntimeOutputs(*(array[start:stop] for array in outputs))


def _share(wanted: Array, found: Array) -> float:
    """Largest difference as a share of the largest wanted value, or of 1 if that is larger."""
    return float(np.abs(wanted - found).max() / max(1.0, float(np.abs(wanted).max())))
