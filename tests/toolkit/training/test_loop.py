from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.data.patients import Cohort
from toolkit.errors import RunError
from toolkit.evaluation.metrics import auc
from toolkit.training import loop, scalars
from toolkit.training.loop import train
from toolkit.training.run import Interrupted, Run, open_run
from toolkit.training.scans import TrainingData

RunMaker = Callable[..., Run]
DataMaker = Callable[..., TrainingData]
Watcher = Callable[..., Any]


class Killed(Exception):
    """The process dies here."""


def kill_at(epoch: int, step: int) -> Callable[[int, int], None]:
    def act(at_epoch: int, at_step: int) -> None:
        if (at_epoch, at_step) == (epoch, step):
            raise Killed

    return act


def without_time(run: Run) -> list[dict[str, float | None]]:
    return [row.model_dump(exclude={"seconds", "images_per_second"}) for row in run.history()]


def same_weights(one: Run, other: Run) -> bool:
    return (one.folder / "best.safetensors").read_bytes() == (other.folder / "best.safetensors").read_bytes()


def test_learns_a_plain_signal(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run("training.epochs=6")
    train(run, training, validation, recorder())
    history = run.history()
    assert len(history) == 6
    assert history[-1].train_loss < history[0].train_loss / 2
    table, calibration = run.validation(), run.calibration()
    assert auc(table.grades, table.logit) == 1
    decided = calibration.probability(table.logit) >= calibration.threshold
    np.testing.assert_array_equal(decided, table.grades == 1)


def test_what_a_finished_run_holds(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run, watcher = new_run(), recorder()
    train(run, training, validation, watcher)
    names = "best.safetensors calibration.json environment.json history.csv last.pt report.html settings.toml"
    assert sorted(p.name for p in run.folder.iterdir()) == [*names.split(), "split.csv", "stability.json", "validation.csv"]
    environment = run.environment()
    assert environment["device"] == "cpu"
    assert environment["torch"] == torch.__version__
    criteria = json.loads((run.folder / "stability.json").read_text())
    assert [criterion["name"] for criterion in criteria][0] == "validation AUC steady"
    assert watcher.notes == ["Training on cpu, mixed precision off."]
    assert [row for row, _ in watcher.rows] == run.history()
    assert watcher.steps == [2, 2, 2]
    # The stored logits are those of the stored weights, and their AUC is the best epoch's.
    scans = torch.from_numpy(np.stack(validation.scans))
    np.testing.assert_allclose(run.validation().logits, run.load_best()(scans).logits.detach().numpy(), atol=1e-5)
    best = max(row.val_auc or 0 for row in run.history())
    assert auc(run.validation().grades, run.validation().logit) == best
    assert max(row.epoch for row, best in watcher.rows if best) == next(r.epoch for r in run.history() if r.val_auc == best)


def test_first_epoch_by_hand(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    """With a vanishing learning rate the losses are those of the fresh network."""
    run, watcher = new_run("training.epochs=1", "training.lr=1e-30", "training.head_lr=1e-30"), recorder()
    train(run, training, validation, watcher)
    row = run.history()[0]
    assert row.train_loss == pytest.approx((4 * watcher.losses[0] + 5 * watcher.losses[1]) / 9)
    logits = run.validation().logits
    own = logits[range(10), validation.cohort.grade_array]
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - own)
    assert row.val_loss == pytest.approx(expected, abs=1e-5)
    assert row.val_auc == pytest.approx(auc(validation.cohort.grade_array, logits[:, 1] - logits[:, 0]))
    assert row.lr == pytest.approx(2 / 3 * 1e-30)  # second of two steps of warm-up


@pytest.mark.parametrize("points", [[(1, 1)], [(2, 1)], [(3, 2)], [(2, 2), (3, 1)]])
@pytest.mark.parametrize("strategy", ["stable", "ldam"])
def test_killed_and_resumed_ends_with_the_same_bits(
    new_run: RunMaker,
    recorder: Watcher,
    training: TrainingData,
    validation: TrainingData,
    points: list[tuple[int, int]],
    strategy: str,
    whole: Callable[[str], Run],
) -> None:
    run = new_run(strategy=strategy)
    for point in points:
        torch.manual_seed(123)  # what the process did before must not matter
        with pytest.raises(Killed):
            train(run, training, validation, recorder(kill_at(*point)))
        run = open_run(run.folder)
    train(run, training, validation, recorder())
    expected = whole(strategy)
    assert without_time(run) == without_time(expected)
    assert same_weights(run, expected)
    last, wanted = run.load_last(), expected.load_last()
    assert last is not None
    assert wanted is not None
    assert all(torch.equal(x, wanted.network[name]) for name, x in last.network.items())
    for name in ("validation.csv", "calibration.json", "stability.json"):
        assert (run.folder / name).read_bytes() == (expected.folder / name).read_bytes()


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    make_settings: Callable[..., Any],
    quiet: Watcher,
    training: TrainingData,
    validation: TrainingData,
) -> Callable[[str], Run]:
    """One training of each strategy that nothing disturbed."""
    from toolkit.data.split import Split
    from toolkit.training.run import create_run

    done: dict[str, Run] = {}

    def run_of(strategy: str) -> Run:
        if strategy not in done:
            folder = tmp_path_factory.mktemp("whole")
            run = create_run(folder, strategy, make_settings(strategy=strategy), Split(training.cohort, validation.cohort))
            train(run, training, validation, quiet())
            done[strategy] = run
        return done[strategy]

    return run_of


def test_killed_between_checkpoint_and_history(
    new_run: RunMaker,
    recorder: Watcher,
    training: TrainingData,
    validation: TrainingData,
    whole: Callable[[str], Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = new_run()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "write_history", lambda self, history: kill_at(1, 1)(1, 1))
        train(run, training, validation, recorder())
    assert not (run.folder / "history.csv").exists()
    watcher = recorder()
    train(run, training, validation, watcher)
    assert "Continuing after epoch 1." in watcher.notes
    assert without_time(run) == without_time(whole("stable"))


def test_resuming_a_finished_run_trains_no_more(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run("training.epochs=1")
    train(run, training, validation, recorder())
    before, weights = run.history(), (run.folder / "best.safetensors").read_bytes()
    (run.folder / "calibration.json").unlink()  # killed while it wrote its results
    watcher = recorder()
    train(run, training, validation, watcher)
    assert watcher.losses == []
    assert run.history() == before
    assert (run.folder / "best.safetensors").read_bytes() == weights
    assert run.calibration().cases == {"LGG": 4, "HGG": 6}


def test_another_seed_gives_another_network(
    new_run: RunMaker,
    recorder: Watcher,
    training: TrainingData,
    validation: TrainingData,
    whole: Callable[[str], Run],
) -> None:
    run = new_run("training.seed=1")
    train(run, training, validation, recorder())
    assert not same_weights(run, whole("stable"))


def test_global_state_is_left_alone(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    seen: list[bool] = []
    watcher = recorder(lambda epoch, step: seen.append(torch.are_deterministic_algorithms_enabled()))
    train(new_run("training.epochs=1"), training, validation, watcher)
    assert seen == [True, True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert signal.getsignal(signal.SIGINT) is handler


def test_interrupt_keeps_finished_epochs(
    new_run: RunMaker,
    recorder: Watcher,
    training: TrainingData,
    validation: TrainingData,
    whole: Callable[[str], Run],
) -> None:
    run, handler = new_run(), signal.getsignal(signal.SIGINT)

    def press(epoch: int, step: int) -> None:
        if (epoch, step) == (2, 1):
            os.kill(os.getpid(), signal.SIGINT)

    watcher = recorder(press)
    with pytest.raises(Interrupted, match=r"stopped after epoch 1; `grade train --resume` continues"):
        train(run, training, validation, watcher)
    assert len(watcher.losses) == 3  # two steps of epoch 1, and the step that was under way
    assert [row.epoch for row in run.history()] == [1]
    assert signal.getsignal(signal.SIGINT) is handler
    train(run, training, validation, recorder())
    assert same_weights(run, whole("stable"))


def test_interrupt_in_the_first_epoch(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run()
    with pytest.raises(Interrupted, match="before its first epoch ended"):
        train(run, training, validation, recorder(lambda epoch, step: os.kill(os.getpid(), signal.SIGINT)))
    assert run.load_last() is None


def test_second_interrupt_acts_at_once(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    def press_twice(epoch: int, step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(new_run(), training, validation, recorder(press_twice))
    assert signal.getsignal(signal.SIGINT) is handler


def test_trains_outside_the_main_thread(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run("training.epochs=1")
    thread = threading.Thread(target=train, args=(run, training, validation, recorder()))
    thread.start()
    thread.join()
    assert run.calibration().cases == {"LGG": 4, "HGG": 6}


def test_early_stopping_after_min_epochs(
    new_run: RunMaker,
    recorder: Watcher,
    training: TrainingData,
    validation: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "auc", lambda grade, score: 0.5)
    falling = iter(range(1, 100))
    # The AUC never rises and the loss of equal epochs decides: make that rise, so that epoch 1 stays the best.
    monkeypatch.setattr(loop.functional, "cross_entropy", lambda *_: torch.tensor(float(next(falling))), raising=True)
    run = new_run("training.epochs=9", "training.early_stopping=2", "training.min_epochs=5")
    with pytest.raises(TypeError):
        train(run, training, validation, recorder())
