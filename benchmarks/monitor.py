"""How often a quiet year raises an alarm, and how soon a drift is found: `python -m benchmarks.monitor`.

Statistics alone, no images: a reference of validation patients and 400 new ones, in 32 numbers that hang together.
"""

from __future__ import annotations

import numpy as np

from benchmarks.common import arguments, keep
from toolkit.evaluation.calibration import sigmoid
from toolkit.evaluation.local.watch import watch_numbers, watch_outcomes, watch_share

STREAMS, YEAR, CHANGE, RATE = 32, 400, 200, 0.05
WATCHED = STREAMS + 1 + 3  # numbers, refusals, and with outcomes calibration and the coverage of two grades
DRIFTS = {
    "one number by 1 sd": (1, 1.0),
    "one number by 2 sd": (1, 2.0),
    "one number by 4 sd": (1, 4.0),
    "eight numbers by 1 sd": (8, 1.0),
}


def patients(rng, count):
    """(count, STREAMS), a third of each number's variance shared by all, heavy tails."""
    return np.sqrt(1 / 3) * rng.normal(size=(count, 1)) + np.sqrt(2 / 3) * rng.standard_t(5, (count, STREAMS))


def alarms(rng, reference: int, drift: tuple[int, float] | None) -> int | None:
    """First alarm of one year."""
    known, new = patients(rng, reference), patients(rng, YEAR)
    if drift:
        new[CHANGE:, : drift[0]] += drift[1]
    rate = RATE / WATCHED
    found = [watch_numbers(str(k), known[:, k], new[:, k], rate, YEAR).alarm for k in range(STREAMS)]
    refused = (rng.random(YEAR) < 0.03).astype(int)
    found.append(watch_share("refused", refused, 0.1, rate, YEAR).alarm)
    z = rng.normal(0.4, 1.6, YEAR)
    grade = (rng.random(YEAR) < sigmoid(z)).astype(int)
    known_late = rng.random(YEAR) < np.linspace(0.9, 0.1, YEAR)  # outcomes are late and incomplete
    found.append(watch_outcomes("calibration", grade[known_late], sigmoid(z)[known_late], 2.0, rate).alarm)
    for _ in range(2):
        missed = (rng.random(YEAR // 2) < 0.1).astype(int)
        found += [watch_share("coverage", missed, 0.1, rate, YEAR).alarm]
    return min((one for one in found if one is not None), default=None)


def main() -> None:
    given = arguments(
        __doc__,
        ("--years", {"type": int, "default": 200}),
        ("--drifted", {"type": int, "default": 50}),
        ("--reference", {"type": int, "nargs": "+", "default": [25, 60]}),
    )
    rows = {}
    for reference in given.reference:
        rng = np.random.default_rng(reference)
        quiet = [alarms(rng, reference, None) for _ in range(given.years)]
        row = {"quiet years": given.years, "with a false alarm": sum(one is not None for one in quiet)}
        for name, drift in DRIFTS.items():
            firsts = [alarms(rng, reference, drift) for _ in range(given.drifted)]
            delays = [one - CHANGE for one in firsts if one is not None and one >= CHANGE]
            row[name] = {
                "years": given.drifted,
                "found": len(delays),
                "alarm before": sum(one is not None and one < CHANGE for one in firsts),
                "median delay": float(np.median(delays)) if delays else None,
                "90 % within": float(np.quantile(delays, 0.9)) if delays else None,
            }
        rows[f"{reference} reference patients"] = row
    keep(rows, given.out)


if __name__ == "__main__":
    main()
