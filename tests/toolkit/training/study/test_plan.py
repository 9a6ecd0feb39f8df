from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.config import PRESETS, Settings, load_settings
from toolkit.data.cohort.split import Split
from toolkit.errors import Interrupted, RunError, SettingsError
from toolkit.training.loop.balance import check_conflicts
from toolkit.training.loop.scans import TrainingData
from toolkit.training.prepare import Prepared
from toolkit.training.processes.spread import IN_THIS_PROCESS
from toolkit.training.runs.folder import create_run
from toolkit.training.study import plan as compare
from toolkit.training.study.plan import LEVERS, carry_out, plan_arms, plan_runs


def load(strategy: str, changes: tuple[str, ...]) -> Settings:
    return load_settings(None, strategy, ("data.cohort=c", *changes))


class Watcher:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ended: list[tuple[str, str | None]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def run_started(self, name: str, number: int, total: int) -> None:
        self.notes.append(f"{number} of {total}: {name}")

    def run_ended(self, name: str, failure: str | None) -> None:
        self.ended.append((name, failure))


def test_arms_and_runs() -> None:
    arms = plan_arms(["stable", "legacy"], ["no-ema", "group-norm"])
    assert [arm.name for arm in arms] == ["stable", "legacy", "stable-no-ema", "stable-group-norm"]
    planned = plan_runs(arms, 2, 0, load)
    assert [one.name for one in planned[:5]] == [
        "stable-s0",
        "legacy-s0",
        "stable-no-ema-s0",
        "stable-group-norm-s0",
        "stable-s1",
    ]
    assert (planned[0].settings.training.ema, planned[2].settings.training.ema) == (0.75, 0)
    assert planned[3].settings.network.norm == "group"
    assert {one.settings.training.seed for one in planned[4:]} == {1}
    assert planned[1].settings.training.drw_epoch == 25
    names = [one.name for one in plan_runs(arms[:1], 1, 3, load)]
    assert names == ["stable-s0-f1", "stable-s0-f2", "stable-s0-f3"]
    assert len(set(planned)) == len(planned)  # a study looks its runs up by them


def test_a_lever_of_another_strategy() -> None:
    arms = plan_arms(["stable", "legacy"], ["densenet121", "legacy-patience", "stem-stride-1"])
    assert [(arm.name, arm.strategy) for arm in arms[2:]] == [
        ("stable-densenet121", "stable"),
        ("legacy-patience", "legacy"),
        ("stable-stem-stride-1", "stable"),
    ]
    settings = load("legacy", arms[3].changes)
    assert settings.training.drw_epoch < settings.training.epochs < settings.training.early_stopping
    with pytest.raises(SettingsError, match=r"ldam-clip would have nothing to be compared with; add its strategy"):
        plan_arms(["stable"], ["ldam-clip"])


def test_seeds_count_up_from_the_users_own() -> None:
    planned = plan_runs(
        plan_arms(["stable"], []), 2, 0, lambda name, changes: load(name, ("training.seed=7", *changes))
    )
    assert [one.seed for one in planned] == [7, 8]


@pytest.mark.parametrize("lever", LEVERS)
def test_each_lever_changes_stable_and_upsets_no_guard(lever: str) -> None:
    settings = load("stable", LEVERS[lever])
    assert settings != load("stable", ())
    assert check_conflicts(settings, allow=False) == ()


@pytest.mark.parametrize(
    "strategies, levers, sentence",
    [
        ([], [], "no strategy is named"),
        (["stable"], ["sleep"], "'sleep' is nothing to ablate; choose among no-ema,"),
        (["stable", "stable"], [], "named twice"),
    ],
)
def test_plans_that_make_no_sense(strategies: list[str], levers: list[str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        plan_arms(strategies, levers)


def test_levers_are_off_in_every_preset_but_two_in_stable() -> None:
    for name in PRESETS:
        training, network = load(name, ()).training, load(name, ()).network
        assert (training.clip, training.class_weights) == (None, False)
        assert (training.ema, training.frozen_bn_epoch) == ((0.75, 10) if name == "stable" else (0, 0))
        assert (training.augment.modality_dropout, training.label_smoothing, network.norm) == (0, 0, "batch")


@pytest.fixture
def three(training: TrainingData, monkeypatch: pytest.MonkeyPatch) -> list[compare.PlannedRun]:
    monkeypatch.setattr(compare, "prepare", lambda data, watcher: Prepared(training.cohort, None, {}, ()))
    return plan_runs(plan_arms(["stable", "ldam", "legacy"], []), 1, 0, load)


def test_what_fails_is_told_and_the_others_go_on(
    three: list[compare.PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(planned: compare.PlannedRun, *_: object) -> None:
        if planned.arm == "ldam":
            raise RunError("no loss of epoch 3 is finite.")

    monkeypatch.setattr(compare, "_begin", begin)
    watcher = Watcher()
    assert carry_out(three, tmp_path, IN_THIS_PROCESS, watcher) == {"ldam-s0": "no loss of epoch 3 is finite."}  # type: ignore[arg-type]
    assert watcher.ended == [("stable-s0", None), ("ldam-s0", "no loss of epoch 3 is finite."), ("legacy-s0", None)]
    assert any("3 balancing mechanisms" in note for note in watcher.notes)


def test_an_interrupt_ends_the_study(
    three: list[compare.PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*_: object) -> None:
        raise Interrupted("stopped")

    monkeypatch.setattr(compare, "_begin", begin)
    watcher = Watcher()
    with pytest.raises(Interrupted):
        carry_out(three, tmp_path, IN_THIS_PROCESS, watcher)  # type: ignore[arg-type]
    assert watcher.ended == []


def test_a_run_of_other_settings_is_no_run_of_this_study(
    three: list[compare.PlannedRun], tmp_path: Path, training: TrainingData, data: Callable[..., Any]
) -> None:
    split = Split(training.cohort, training.cohort)
    create_run(tmp_path, "stable-s0", load("stable", ("training.epochs=7",)), split)
    with pytest.raises(RunError, match=r"stable-s0 was made with training\.epochs = 7, not 40"):
        carry_out(three, tmp_path, IN_THIS_PROCESS, Watcher())  # type: ignore[arg-type]


def test_what_has_ended_is_left_and_what_was_cut_off_is_resumed(
    three: list[compare.PlannedRun], tmp_path: Path, training: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = Split(training.cohort, training.cohort)
    for one in three[:2]:
        create_run(tmp_path, one.name, one.settings.model_copy(), split)
    (tmp_path / "stable-s0" / "report.html").write_text("page")
    resumed: list[str] = []
    begun: list[str] = []
    monkeypatch.setattr(compare, "continue_run", lambda run, *_: resumed.append(run.folder.name))
    monkeypatch.setattr(compare, "_begin", lambda planned, *_: begun.append(planned.name))
    assert carry_out(three, tmp_path, IN_THIS_PROCESS, Watcher()) == {}  # type: ignore[arg-type]
    assert (resumed, begun) == (["ldam-s0"], ["legacy-s0"])
