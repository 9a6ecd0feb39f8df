"""What a study looks like in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.console import answer, bar, figure, note, say, table
from cli.options import settings_from
from cli.screens.train import TrainingScreen
from toolkit.config import Settings
from toolkit.data.patients import Patient
from toolkit.evaluation.study import Study, Summary


class StudyScreen(TrainingScreen):
    """A line for each training that began or ended; a note that several trainings share is shown once."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def note(self, text: str) -> None:
        """See `TrainingScreen`."""
        if text not in self._told:
            self._told.add(text)
            super().note(text)

    @contextmanager
    def measuring(self, patients: int) -> Iterator[Callable[[Patient], None]]:
        """A bar for the baselines' look at the patients."""
        with bar("measuring patients for the baselines", patients) as done:
            yield done

    def run_started(self, name: str, number: int, total: int) -> None:
        """Which training the next lines are about."""
        say(f"training {number} of {total}: {name}")

    def run_ended(self, name: str, failure: str | None) -> None:
        """What became of it."""
        if failure:
            note(f"{name} failed: {failure}")
        else:
            say(f"{name} has ended")


def names(text: str) -> list[str]:
    """The names in a list separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def settings_loader(
    config: Path, overrides: list[str] | None, cohort: Path
) -> Callable[[str, tuple[str, ...]], Settings]:
    """Settings of a strategy with changes, for `plan_runs`; a change of an arm wins over the user's own."""
    here = {"data.cohort": cohort.absolute()}
    return lambda strategy, changes: settings_from(config, [*(overrides or []), *changes], strategy, here)


def show_study(study: Study, folder: Path) -> None:
    """The table, the verdicts, where the page is."""
    answer(study.headline)
    rows = [
        (
            arm.name,
            str(arm.runs),
            _mean_sd(arm.auc),
            f"{figure(arm.spread.mean)} ({figure(arm.spread.high)})",
            f"{figure(arm.peak.mean)} ({figure(arm.peak.high)})",
            figure(arm.spikes.mean, 4),
            figure(arm.gap.mean),
            figure(arm.epochs.mean, 1),
            "–" if arm.drw_epoch is None else f"{arm.drw_epoch}, began in {arm.drw_started}",
            figure(arm.seconds.mean, 0),
        )
        for arm in study.arms
    ]
    rows += [(one.name, "", _mean_sd(one.auc), "", "", "", "", "", "", "") for one in study.baselines]
    columns = (
        "",
        "runs",
        "AUC",
        "std, last 5 (worst)",
        "peak (worst)",
        "spikes",
        "gap",
        "epochs",
        "re-weighting",
        "seconds",
    )
    table("Strategies and baselines", columns, rows)
    words = {True: "met", False: "not met", None: "–"}
    verdicts = [(arm.name, one.name, words[one.met], one.sentence) for arm in study.arms for one in arm.verdicts]
    table("Criteria", ("", "", "", ""), verdicts)
    table(
        "Differences of AUC on the same patients",
        ("", "less", "difference", "95 % interval"),
        [(p.one, p.other, figure(p.difference), f"{figure(p.low)} to {figure(p.high)}") for p in study.pairs],
    )
    for sentence in study.notes:
        note(sentence)
    say(f"page: {folder / 'report.html'}   numbers: {folder / 'study.json'}")


def _mean_sd(values: Summary) -> str:
    return figure(values.mean) if values.sd is None else f"{figure(values.mean)} ± {figure(values.sd)}"
