"""A study: strategies times seeds, each training an ordinary run folder; what has ended is not trained again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from toolkit.config import PRESETS, Settings, differences
from toolkit.errors import Interrupted, RunError, SettingsError
from toolkit.files import alone
from toolkit.training.loop.balance import check_conflicts
from toolkit.training.prepare import Prepared, prepare
from toolkit.training.processes.ranks import ALONE, Ranks
from toolkit.training.processes.spread import Spread, spread
from toolkit.training.runs.folder import create_run, open_run
from toolkit.training.runs.run import Run
from toolkit.training.runs.unchanged import check_cohort
from toolkit.training.single import continue_run, train_run
from toolkit.training.watch import Quiet, StudyWatcher, Watcher

# What --ablate can name: one change each to the first strategy, or to the one in front of it, as in legacy-patience.
LEVERS: dict[str, tuple[str, ...]] = {
    "no-ema": ("training.ema=0",),
    "no-frozen-bn": ("training.frozen_bn_epoch=0",),
    "group-norm": ("network.norm=group",),
    "clip": ("training.clip=1.0",),
    "smoothing": ("training.label_smoothing=0.05",),
    "class-weights": ("training.class_weights=true", "training.sampler=shuffle"),
    "modality-dropout": ("training.augment.modality_dropout=0.2",),
    "thick-slices": ("training.augment.slice_thickness=6",),
    "intensity": ("training.augment.intensity=0.25",),
    "resnet10": ("network.depth=10",),
    "resnet18": ("network.depth=18",),
    "resnet34": ("network.depth=34",),
    "stem-stride-1": ("network.stem_stride=1",),
    "densenet121": ("network.arch=densenet121", "network.depth=50"),  # which stands for "none chosen"
    "seresnet50": ("network.arch=seresnet50", "network.depth=50"),
    "efficientnet-b0": ("network.arch=efficientnet-b0", "network.depth=50"),
    "patience": ("training.early_stopping=1000",),  # every epoch is trained
}


@dataclass(frozen=True)
class ArmPlan:
    """A strategy, or a strategy with one lever: its name, and the settings that differ from the preset."""

    name: str
    strategy: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class PlannedRun:
    """One training of a study.

    Attributes:
        name: of its folder.
        arm: name of the arm.
        seed: of everything random.
        fold: counted from 1, of how many; None without folds.
        settings: all of them.
    """

    name: str
    arm: str
    seed: int
    fold: tuple[int, int] | None
    settings: Settings = field(hash=False)  # it holds tables, which have no hash


def plan_arms(strategies: Sequence[str], levers: Sequence[str]) -> list[ArmPlan]:
    """The strategies, then the first one with each lever, or the one that the lever names in front.

    Raises:
        SettingsError: an unknown lever or one of a strategy that is not compared, a name given twice, or no strategy.
    """
    if not strategies:
        raise SettingsError("no strategy is named; write --strategies stable,legacy.")
    pulled = [pulled_lever(name, strategies[0]) for name in levers]
    unknown = [name for _, name in pulled if name not in LEVERS]
    if unknown:
        raise SettingsError(f"'{unknown[0]}' is nothing to ablate; choose among {', '.join(LEVERS)}.")
    absent = [f"{strategy}-{name}" for strategy, name in pulled if strategy not in strategies]
    if absent:
        raise SettingsError(f"{absent[0]} would have nothing to be compared with; add its strategy to --strategies.")
    arms = [ArmPlan(name, name, ()) for name in strategies]
    arms += [ArmPlan(f"{strategy}-{name}", strategy, LEVERS[name]) for strategy, name in pulled]
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise SettingsError(f"an arm is named twice among {', '.join(names)}; name each once.")
    return arms


def pulled_lever(name: str, first: str) -> tuple[str, str]:
    """The strategy and the lever that a name such as `clip` or `legacy-clip` means.

    Args:
        name: as --ablate has it.
        first: the strategy that is meant where none is named.
    """
    strategy, _, lever = name.partition("-")
    return (strategy, lever) if strategy in PRESETS else (first, name)


def plan_runs(
    arms: Sequence[ArmPlan], seeds: int, folds: int, load: Callable[[str, tuple[str, ...]], Settings]
) -> list[PlannedRun]:
    """Every training of a study, seed by seed, so that a study that is cut short has all arms of its first seeds.

    Args:
        arms: what is compared.
        seeds: how many; they count up from the settings' own.
        folds: 0 for one split a seed.
        load: settings of a strategy with changes.

    Raises:
        SettingsError: as `load`, or the settings ask for folds themselves.
    """
    first = load(arms[0].strategy, ()).training.seed
    planned = []
    for seed in range(first, first + seeds):
        for fold in _folds(folds):
            for arm in arms:
                settings = load(arm.strategy, (*arm.changes, f"training.seed={seed}"))
                if settings.data.folds:
                    raise SettingsError("a study asks for folds by --folds; take data.folds out of the settings.")
                name = f"{arm.name}-s{seed}" + (f"-f{fold[0]}" if fold else "")
                planned.append(PlannedRun(name, arm.name, seed, fold, settings))
    return planned


def _folds(count: int) -> list[tuple[int, int] | None]:
    return [(number, count) for number in range(1, count + 1)] if count else [None]


def carry_out(planned: Sequence[PlannedRun], runs: Path, over: Spread, watcher: StudyWatcher) -> dict[str, str]:
    """Train what is not trained yet.

    Args:
        planned: all trainings; they share `[data]`.
        runs: the folder of their runs.
        over: how many trainings at once, on how many GPUs.
        watcher: is told what happens.

    Returns:
        Name -> sentence of each training that failed, for example because its numbers became infinite.

    Raises:
        Interrupted: SIGINT; what ended is kept, and the same command continues.
        RunError: a run of that name has other settings, or another process trains this study.
        SettingsError: no cohort is named.
        CohortError: the cohort cannot be used, or is not that of the runs that were begun.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{runs} cannot be made: {error.strerror}; name another folder with --out.") from error
    busy = RunError(f"another process trains the study in {runs.parent}; wait for it, or stop it.")
    with alone(runs / ".lock", busy):
        begun = {one: run for one in planned if (run := _begun(one, runs))}
        waiting = [one for one in planned if one not in begun or not begun[one].ended]
        for sentence in dict.fromkeys(s for one in waiting for s in check_conflicts(one.settings, allow=True)):
            watcher.note(sentence)
        prepared = prepare(planned[0].settings.data, watcher)  # fills the cache, for other processes too
        for run in begun.values():
            check_cohort(run, prepared.everyone, prepared.scans)
        return _train_waiting(waiting, runs, prepared, over, watcher)


def _train_waiting(
    waiting: Sequence[PlannedRun], runs: Path, prepared: Prepared, over: Spread, watcher: StudyWatcher
) -> dict[str, str]:
    """Name -> sentence of each training that failed."""
    failed: dict[str, str] = {}

    def ended(one: PlannedRun, failure: str | None) -> None:
        watcher.run_ended(one.name, failure)
        if failure:
            failed[one.name] = failure

    if over.jobs > 1:
        spread(partial(_in_own_process, runs, prepared.without_scans()), waiting, over, ended)
    else:
        for number, one in enumerate(waiting, start=1):
            watcher.run_started(one.name, number, len(waiting))
            ended(one, _attempt(one, runs, prepared, watcher, ALONE))
    return failed


def _begun(planned: PlannedRun, runs: Path) -> Run | None:
    """The run of a training, if there is one.

    Raises:
        RunError: it has other settings.
    """
    folder = runs / planned.name
    if not folder.exists():
        return None
    run = open_run(folder)
    for key, (there, wanted) in differences(run.settings, planned.settings).items():
        if key != "data.cache":
            raise RunError(
                f"run {folder} was made with {key} = {there!r}, not {wanted!r}; name another folder with"
                " --out, or delete the run."
            )
    return run


def _in_own_process(runs: Path, prepared: Prepared, planned: PlannedRun, ranks: Ranks) -> str | None:
    quiet = Quiet()
    return _attempt(planned, runs, prepared.with_scans(planned.settings.data, quiet), quiet, ranks)


def _attempt(planned: PlannedRun, runs: Path, prepared: Prepared, watcher: Watcher, ranks: Ranks) -> str | None:
    """Train; the sentence of what made it fail."""
    try:
        if (runs / planned.name).exists():
            continue_run(open_run(runs / planned.name), watcher, ranks)
        else:
            _begin(planned, runs, prepared, watcher, ranks)
    except Interrupted:
        raise
    except RunError as error:
        return str(error)
    return None


def _begin(planned: PlannedRun, runs: Path, prepared: Prepared, watcher: Watcher, ranks: Ranks) -> None:
    if planned.fold:
        number, count = planned.fold
        split = prepared.folds(planned.settings.data, count, planned.seed)[number - 1]
    else:
        split = prepared.split(planned.settings.data, planned.seed)
    train_run(create_run(runs, planned.name, planned.settings, split, prepared.images), prepared.scans, watcher, ranks)
