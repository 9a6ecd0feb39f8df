"""Which kind a series is, by its physics, contrast agent, name and image type; facts that contradict are refused.

Source: ranges of repetition, echo and inversion times as vendors' brain protocols have them; which fields can be
believed follows reports on dcm2niix, MONAI Deploy and clinica (see docs/hospital.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from deploy.hospital.study.names import Name, read_name, read_site_name
from deploy.hospital.study.series import FEWEST_SLICES, SMALLEST_EXTENT, Series, not_an_image

Kind = Literal["", "flair", "t1", "t1ce", "t2", "t1?", "conflict"]
_TYPES = {
    "LOCALIZER", "ADC", "TRACEW", "TRACE", "FA", "DIFFUSION", "PERFUSION", "FMRI", "P", "PHASE", "PHASE MAP", "B0 MAP",
    "R", "I", "REAL", "IMAGINARY", "PROJECTION IMAGE", "MIP", "MINIP", "SUBTRACT", "SUBTRACTION", "ASL", "RCBV",
    "RCBF", "CBV", "CBF", "MTT", "TTP", "TMAX", "T1 MAP", "T2 MAP", "T2_STAR MAP", "UNI", "MOSAIC", "SCREEN SAVE",
    "VELOCITY MAP",
}  # fmt: skip
_HARMLESS_DERIVED = {"MPR", "NORM", "DIS2D", "DIS3D"}  # reformatted or corrected, still the same contrast
_CONTRAST_KINDS = {"T2_STAR", "DIFFUSION", "PERFUSION", "PROTON_DENSITY", "FLOW_ENCODED", "TAGGING", "STIR"}
_HEAD = {"", "BRAIN", "HEAD", "SKULL", "HEADNECK", "CEREBRAL", "NEURO", "CRANIUM", "CEREBRUM", "UNKNOWN", "WHOLEHEAD"}
_NO_AGENT = {
    "NONE",
    "NO",
    "N",
    "0",
    "NO CONTRAST",
    "WITHOUT",
    "OHNE",
    "NIL",
    "N/A",
    "NA",
    "-",
    "UNENHANCED",
    "NATIV",
    "FALSE",
}
_SAME = 0.05  # share by which a time may differ inside one series


@dataclass(frozen=True)
class SeriesRules:
    """What a site and a user say about series.

    Attributes:
        names: modality (or `ignore`) -> regular expressions for SeriesDescription, from `[hospital.series]`.
        forced: modality -> SeriesNumber or SeriesInstanceUID, from `--series`; overrules everything but geometry.
    """

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forced: Mapping[str, str] = field(default_factory=dict)


class Judgement(NamedTuple):
    """What a series is taken for.

    Attributes:
        kind: the modality; `t1?` where nothing says whether it is before or after contrast; `conflict` where facts
            contradict each other; empty if none.
        usable: whether it may be chosen.
        reason: the facts, without a full stop.
        marks: how many independent facts say that it is after contrast.
    """

    kind: Kind
    usable: bool
    reason: str
    marks: int = 0


class _Physics(NamedTuple):
    kind: str  # by the strict ranges; empty if none fits
    possible: frozenset[str]  # what the times do not rule out
    text: str
    complete: bool  # repetition and echo time are known


def judge(series: Series, rules: SeriesRules) -> Judgement:
    """What a series is, and why.

    Args:
        series: one of a study.
        rules: the site's names; what is forced is not looked at here.
    """
    if other := not_an_image(series):
        return Judgement("", False, other)
    name = read_site_name(series.description, rules.names) or read_name(series.description)
    if out := (name.other and f"its name says {name.other}") or _left_out(series):
        return Judgement("", False, out)
    kind, reason, marks = _kind(series, name)
    if kind == "conflict":
        return Judgement("conflict", False, reason)
    unfit = series.fault or _too_small(series)
    if unfit or not kind:
        return Judgement(kind, False, unfit or reason)  # type: ignore[arg-type]
    return Judgement(kind, True, reason, marks)  # type: ignore[arg-type]


def _left_out(series: Series) -> str:
    head = series.head
    types = {word for header in series.instances for frame in header.frames for word in frame.image_type}
    diffusion = max(header.diffusion for header in series.instances)
    reasons = (
        (bool(types & _TYPES), f"its image type says {' and '.join(sorted(types & _TYPES))}"),
        ("DERIVED" in types and not types & _HARMLESS_DERIVED, "its image type says DERIVED"),
        ("EP" in head.sequences or head.sequence_name.lower().lstrip("*").startswith("ep"), "it is echo planar"),
        (any(header.angio for header in series.instances), "its header says angiography or phase contrast"),
        (diffusion > 0, f"it has a diffusion weighting of b = {diffusion:g}"),
        (head.contrast_kind in _CONTRAST_KINDS, f"its header says {head.contrast_kind}"),
        (re.sub(r"[ _]", "", head.body_part) not in _HEAD, f"its body part is {head.body_part}"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def _too_small(series: Series) -> str:
    stack = series.stack
    if len(stack.slots) < FEWEST_SLICES:
        return f"has {len(stack.slots)} slices; {FEWEST_SLICES} at least are needed"
    if min(stack.extent) < SMALLEST_EXTENT:
        sides = " x ".join(f"{side:.0f}" for side in stack.extent)
        return f"covers {sides} mm; {SMALLEST_EXTENT:.0f} mm each way are needed"
    return ""


def _kind(series: Series, name: Name) -> tuple[str, str, int]:
    """Kind (or `conflict`), its reason, and the marks of contrast."""
    said = f"the name says {name.said}" if name.said else "the name says nothing"
    if mixed := _mixed(series):
        return "conflict", f"{said}, but {mixed}", 0
    physics = _physics(series)
    if physics.kind == "other":
        return "", physics.text, 0
    if name.kind:
        if name.kind not in physics.possible or (physics.kind and physics.kind != name.kind):
            means = f", which means {physics.kind.upper()}" if physics.kind else ""
            return "conflict", f"{said}, but it has {physics.text}{means}", 0
        kind, reason = name.kind, f"{physics.text}; {said}" if physics.complete else f"{said}; {physics.text}"
    elif name.contrast == "both" and name.site:
        return "conflict", f"two of the site's rules match: {name.said}", 0
    else:
        kind = physics.kind if _sure_alone(series, physics) else ""
        reason = f"{physics.text}; {said}"
        if not kind:
            return "", f"{reason}; that is not enough to tell what it is", 0
    return _with_contrast(series, name, reason) if kind == "t1" else (kind, reason, 0)


def _with_contrast(series: Series, name: Name, reason: str) -> tuple[str, str, int]:
    """T1 before or after contrast, by agent, name and time of injection."""
    agents = {(header.agent or "").strip().upper() for header in series.instances}
    named = agents - _NO_AGENT - {""}
    agent = ""
    if named:
        agent = f"the header names the agent {min(named)}"
    elif agents - {""}:
        agent = "the header says that there was no agent"
    start = max((header.agent_start for header in series.instances), default="")
    early = bool(named and start and series.acquired) and series.acquired[:12] < start[:12]
    conflicts = (
        (bool(named) and named != agents, f"{reason}, but some of its images name a contrast agent and some do not"),
        (name.contrast == "both", f"the name says {name.said}: before or after contrast?"),
        (bool(named) and name.contrast == "before", f"the name says {name.said}, but {agent}"),
        (not named and bool(agent) and name.contrast == "after", f"the name says {name.said}, but {agent}"),
        (early, f"{agent}, but it was acquired before the injection"),
    )
    if conflict := next((text for holds, text in conflicts if holds), ""):
        return "conflict", conflict, 0
    facts = "; ".join(part for part in (reason, agent) if part)
    marks = bool(named) + (name.contrast == "after")
    if marks:
        return "t1ce", facts, marks
    return "t1" if agent or name.contrast == "before" else "t1?", facts, 0


def _mixed(series: Series) -> str:
    for name, said in (("tr", "repetition"), ("te", "echo"), ("ti", "inversion")):
        known = series.varying(name)
        if known and known[1] - known[0] > _SAME * abs(known[1]):
            return f"its images have {said} times from {known[0]:g} to {known[1]:g} ms"
    head = series.head
    for other in series.instances:
        for what, said in (("sequences", "sequences"), ("description", "names"), ("number", "series numbers")):
            if getattr(other, what) != getattr(head, what):
                return f"its images have different {said}; {other.source.name} is one"
    return ""


def _physics(series: Series) -> _Physics:
    tr, te, ti = (known[1] if (known := series.varying(name)) else None for name in ("tr", "te", "ti"))
    ti = ti or None  # 0 is how some write that there is no inversion
    sequences = set(series.head.sequences)
    parts = [f"{label} {value:g}" for label, value in (("TR", tr), ("TE", te), ("TI", ti)) if value is not None]
    text = f"{', '.join(parts)} ms" if parts else "no repetition, echo or inversion time in the header"
    if sequences:
        text += f", sequence {'+'.join(series.head.sequences)}"
    gradient = "GR" in sequences and not sequences & {"SE", "IR"}
    if gradient and te is not None and te >= 10:
        return _Physics("other", frozenset(), f"{text}: a T2*-weighted gradient echo", True)
    if gradient and "SS" in series.head.variants and not {"SP", "MP"} & set(series.head.variants) and (tr or 99) < 12:
        return _Physics("other", frozenset(), f"{text}: a steady-state gradient echo", True)
    possible = frozenset(kind for kind, fits in _possible(tr, te, ti, sequences).items() if fits)
    complete = tr is not None and te is not None
    return _Physics(_strict(tr, te, ti, sequences) if complete else "", possible, text, complete)


def _strict(tr: float | None, te: float | None, ti: float | None, sequences: set[str]) -> str:
    if tr is None or te is None:
        return ""
    if ti is not None and ti >= 1500 and te >= 60 and tr >= 4000 and _may_invert(sequences):
        return "flair"
    if te < 35 and (400 <= ti <= 1300 if ti is not None else tr < 1000):
        return "t1"
    if te >= 60 and tr >= 2000 and ti is None and "IR" not in sequences:
        return "t2"
    return ""


def _possible(tr: float | None, te: float | None, ti: float | None, sequences: set[str]) -> dict[str, bool]:
    gradient = "GR" in sequences
    return {
        "t1": (te is None or te < 35)
        and (300 <= ti <= 1400 if ti is not None else tr is None or tr < 2000 or (gradient and (te or 0) < 10)),
        "t2": (te is None or te >= 60) and (tr is None or tr >= 2000) and ti is None and "IR" not in sequences,
        "flair": (te is None or te >= 60)
        and (tr is None or tr >= 4000)
        and (ti is None or ti >= 1400)
        and _may_invert(sequences),
    }


def _may_invert(sequences: set[str]) -> bool:
    """Whether the sequence may have an inversion; GE writes RM for any sequence of its own."""
    return not sequences or bool(sequences & {"IR", "RM"})


def _sure_alone(series: Series, physics: _Physics) -> bool:
    """Whether the physics tell the kind without a name: a lost inversion time would make a FLAIR look like a T2."""
    sequences = set(series.head.sequences)
    if physics.kind == "t2":
        return "SE" in sequences
    if physics.kind == "t1":
        return bool(sequences & {"SE", "IR"})  # a plain gradient echo may be an angiography
    return physics.kind == "flair"
