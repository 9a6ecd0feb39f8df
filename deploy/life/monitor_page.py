"""What `grade monitor` found, as a page, as JSON, and as figures for Prometheus."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deploy.life.monitor import VERDICTS, Monitor, Period
from deploy.model.folder import Model
from toolkit.evaluation.local.watch import Watched
from toolkit.evaluation.pages.drawing import MANY, svg
from toolkit.evaluation.pages.page import number
from toolkit.evaluation.pages.sheet import Head, Section, limits, sheet

PAGE = "monitor.html"
FIRST = 5  # alarms at the top; the table has all
SHOWN = 6  # paths in the picture, those nearest to their limits


def monitor_page(model: Model, found: Monitor) -> str:
    """The page."""
    people = found.history.patients
    span = f"{people[0].time.date()} to {people[-1].time.date()}" if people else "nobody"
    head = Head(
        "Monitoring",
        f"Model {model.short}",
        f"{len(people)} patients, {span}",
        summary(found),
        [
            *(f"{one.name}: {one.towards}, at patient {one.patient}, {one.time}." for one in found.alarms[:FIRST]),
            *found.notes,
        ],
        model.manifest.training.synthetic,
    )
    pictures = []
    if found.watched:
        nearest = sorted(found.watched, key=_nearness, reverse=True)[:SHOWN]
        alt = f"evidence of a change after each patient; {summary(found)}"
        pictures.append(
            Section(
                "Evidence of a change, as a share of its limit", picture=svg(partial(_paths, nearest), alt, (7.5, 3.2))
            )
        )
    if len(found.periods) > 1:
        pictures.append(
            Section(
                "Verdicts",
                picture=svg(partial(_verdicts, found.periods), "share of each verdict by period", (7.5, 3.2)),
            )
        )
    return sheet(head, [*pictures, watched(found), periods(found), outcomes(found), refusals(found)])


def summary(found: Monitor) -> str:
    """The first thing to know."""
    if found.alarms:
        names = [one.name for one in found.alarms]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return (
            f"Alarm: {', '.join(names[:3])}{more}. Find out what changed before more patients are graded by this model."
        )
    if not found.watched:
        return "Nothing to watch yet."
    return f"No alarm: nothing of {len(found.watched)} figures has changed beyond chance."


def watched(found: Monitor) -> Section:
    """Everything that is watched, the nearest to its limit first."""
    rows = [
        (
            one.name,
            "alarm" if one.alarm is not None else "quiet",
            f"{100 * min(_nearness(one), 9.99):.0f} %",
            one.towards if _nearness(one) > 0.5 else "",
            str(len(one.path)),
        )
        for one in sorted(found.watched, key=_nearness, reverse=True)
    ]
    text = [f"Each figure's share of the false alarms is {found.rate:.2%}; all together keep the rate of the settings."]
    return Section(
        "What is watched", ("", "", "largest evidence, of its limit", "towards", "patients"), rows, text=text
    )


def periods(found: Monitor) -> Section:
    """Patients in rows, in the order of time."""
    rows = [
        (
            f"{one.first} to {one.last}",
            str(one.patients),
            str(one.refused),
            _percent(one.hgg),
            *(_percent(one.verdicts[word]) for word in VERDICTS),
            number(one.distance, 1),
            number(one.expected_auc),
        )
        for one in found.periods
    ]
    columns = ("", "patients", "refused", "HGG", *VERDICTS, "median distance", "expected AUC")
    return Section("Over time", columns, rows)


def outcomes(found: Monitor) -> Section:
    """Against pathology, where it is known."""
    rows = [
        (
            f"{one.first} to {one.last}",
            f"{one.outcomes} of {one.patients}",
            limits(one.observed_expected),
            limits(one.auc),
        )
        for one in found.periods
        if one.outcomes
    ]
    columns = ("", "outcomes", "O:E (95 % interval)", "AUC (95 % interval)")
    return Section("Outcomes", columns, rows, text=[] if rows else ["None are known; give them with --outcomes."])


def refusals(found: Monitor) -> Section:
    """Why patients were refused."""
    rows = [(reason, str(count)) for reason, count in found.refusals.items()]
    return Section("Refused patients", ("reason", "patients"), rows, text=[] if rows else ["None."])


def facts(model: Model, found: Monitor) -> dict[str, Any]:
    """What was found, as JSON knows it; no patient is named."""
    return {
        "model": model.fingerprint,
        "patients": len(found.history.patients),
        "alarms": [asdict(one) for one in found.alarms],
        "watched": [
            {
                "name": one.name,
                "patients": len(one.path),
                "evidence": float(one.path[-1]) if len(one.path) else 0.0,
                "largest": float(one.path.max(initial=0)),
                "limit": one.limit,
                "towards": one.towards,
            }
            for one in found.watched
        ],
        "periods": [asdict(one) for one in found.periods],
        "refusals": found.refusals,
        "notes": list(found.notes),
    }


def prometheus(model: Model, found: Monitor) -> str:
    """Figures in Prometheus's text format, for the textfile collector of its node exporter."""
    of = f'model="{model.short}"'
    people = found.history.patients
    lines = [
        "# TYPE grade_monitor_patients gauge",
        f"grade_monitor_patients{{{of}}} {len(people)}",
        "# TYPE grade_monitor_refused gauge",
        f"grade_monitor_refused{{{of}}} {sum(found.refusals.values())}",
        "# TYPE grade_monitor_alarms gauge",
        f"grade_monitor_alarms{{{of}}} {len(found.alarms)}",
        "# TYPE grade_monitor_evidence_share gauge",
        *(f'grade_monitor_evidence_share{{{of},figure="{one.name}"}} {_nearness(one):.6g}' for one in found.watched),
    ]
    return "\n".join(lines) + "\n"


def _nearness(one: Watched) -> float:
    return float(one.path.max(initial=0)) / one.limit


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _paths(nearest: list[Watched], figure: Figure) -> None:
    axes = figure.add_subplot()
    for one, colour in zip(nearest, MANY, strict=False):
        axes.plot(np.arange(1, len(one.path) + 1), one.path / one.limit, color=colour, label=one.name, linewidth=1.2)
    axes.axhline(1, color=MANY[1], linestyle="--", linewidth=1)
    axes.set_xlabel("patients")
    axes.set_ylabel("share of the limit")
    axes.legend(loc="upper left", fontsize=8, ncols=2)


def _verdicts(rows: tuple[Period, ...], figure: Figure) -> None:
    axes = figure.add_subplot()
    place = np.arange(1, len(rows) + 1)
    for word, colour in zip(VERDICTS, MANY, strict=False):
        axes.plot(place, [100 * row.verdicts[word] for row in rows], color=colour, marker="o", label=word)
    axes.set_xlabel("period")
    axes.set_ylabel("% of graded patients")
    axes.set_ylim(0, 100)
    axes.set_xticks(place)
    axes.legend(loc="best", fontsize=8)
