"""Is a figure good enough? Judged by its 95 % interval against an acceptable range."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

Triple: TypeAlias = tuple[float | None, float | None, float | None]
Outcome = Literal["pass", "restrict", "fail"]
Verdict = Literal["pass", "restrict", "do not use"]


class Check(NamedTuple):
    """One judged figure.

    Attributes:
        name: what was judged.
        found: value and 95 % limits, None where unknown; `text` says it where it is no number.
        low: least acceptable value.
        high: largest acceptable value.
        outcome: `fail` where the whole interval is outside, `pass` where it is inside, else `restrict`.
        reason: one phrase.
        text: what was found, where it is no number.
    """

    name: str
    found: Triple
    low: float
    high: float
    outcome: Outcome
    reason: str
    text: str = ""


def judge(name: str, found: Triple, low: float, high: float) -> Check:
    """Judge a figure by its interval; a value without an interval can only fail to be shown.

    Args:
        name: of the figure.
        found: value and 95 % limits.
        low: least acceptable value.
        high: largest acceptable value.
    """
    value, least, most = found
    if value is None:
        return Check(name, found, low, high, "restrict", "not known on these patients")
    inside = low <= value <= high
    if least is None or most is None:
        reason = "no interval: more patients are needed" if inside else "outside, with no interval"
        return Check(name, found, low, high, "restrict", reason)
    if most < low or least > high:
        return Check(name, found, low, high, "fail", "the whole interval is outside the acceptable range")
    if low <= least and most <= high:
        return Check(name, found, low, high, "pass", "the whole interval is inside the acceptable range")
    reason = "acceptable, but not shown by so few patients" if inside else "outside, which may be chance"
    return Check(name, found, low, high, "restrict", reason)


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """`do not use` where anything fails, `pass` where everything passes."""
    outcomes = {check.outcome for check in checks}
    return "do not use" if "fail" in outcomes else "restrict" if "restrict" in outcomes else "pass"
