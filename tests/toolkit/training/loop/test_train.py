from __future__ import annotations

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

from toolkit.data.cohort.split import Split
from toolkit.data.patients import Cohort
from toolkit.errors import Interrupted, RunError
from toolkit.evaluation.metrics import auc
from toolkit.training.loop import scalars
from toolkit.training.loop import train as loop
from toolkit.training.loop.balance import sample_loss
from toolkit.training.loop.compute import Compute
from toolkit.training.loop.epoch import Visit
from toolkit.training.loop.scans import TrainingData
from toolkit.training.loop.session import Session, begin
from toolkit.training.loop.train import train
from toolkit.training.processes.ranks import Ranks
from toolkit.training.runs.folder import create_run, open_run
from toolkit.training.runs.run import Run

RunMaker = Callable[..., Run]
pytestmark = pytest.mark.usefixtures("narrow", "short_report")
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
    run = new_run("training.epochs=12", "training.batch_size=8", "training.accumulation=1", "training.lr=1e-2")
    train(run, training, validation, recorder())
    history = run.history()
    assert len(history) == 12
    assert history[-1].train_loss < history[0].train_loss / 2
    assert history[-1].train_auc == 1
    table, calibration = run.validation(), run.calibration()
    assert auc(table.grades, table.logit) == 1
    decided = calibration.probability(table.logit) >= calibration.threshold
    np.testing.assert_array_equal(decided, table.grades == 1)


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


@pytest.mark.parametrize(
    "strategy, points",
    [("stable", [(1, 1)]), ("stable", [(2, 1)]), ("stable", [(2, 2), (3, 1)]), ("ldam", [(3, 2)])],
)
def test_killed_and_resumed_ends_with_the_same_bits(
    new_run: RunMaker,
    recorder: Watcher,
    training: TrainingData,
    validation: TrainingData,
    strategy: str,
    points: list[tuple[int, int]],
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
    narrow: None,
    short_report: None,
    tmp_path_factory: pytest.TempPathFactory,
    make_settings: Callable[..., Any],
    recorder: Watcher,
    training: TrainingData,
    validation: TrainingData,
) -> Callable[[str], Run]:
    """One training of each strategy that nothing disturbed."""
    done: dict[str, Run] = {}

    def run_of(strategy: str) -> Run:
        if strategy not in done:
            folder = tmp_path_factory.mktemp("whole")
            run = create_run(
                folder, strategy, make_settings(strategy=strategy), Split(training.cohort, validation.cohort)
            )
            train(run, training, validation, recorder())
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
        patch.setattr(Run, "write_steps", lambda self, steps: kill_at(1, 1)(1, 1))
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
    assert len(watcher.losses) == 4  # two steps of epoch 1; in epoch 2 the step before, and the one that notices
    assert [row.epoch for row in run.history()] == [1]
    assert signal.getsignal(signal.SIGINT) is handler
    train(run, training, validation, recorder())
    assert same_weights(run, whole("stable"))


def test_interrupt_in_the_first_epoch(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    def press(epoch: int, step: int) -> None:
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    run = new_run()
    with pytest.raises(Interrupted, match="before its first epoch ended"):
        train(run, training, validation, recorder(press))
    assert run.load_last() is None


def test_second_interrupt_acts_at_once(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    def press_twice(epoch: int, step: int) -> None:
        signal.raise_signal(signal.SIGINT)  # handled when it returns, so that two do not become one
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(new_run(), training, validation, recorder(press_twice))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_trains_outside_the_main_thread(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run("training.epochs=1")
    thread = threading.Thread(target=train, args=(run, training, validation, recorder()))
    thread.start()
    thread.join()
    assert run.calibration().cases == {"LGG": 4, "HGG": 6}


@pytest.mark.parametrize("least, epochs", [(0, 3), (4, 4), (9, 5)])
def test_early_stopping(
    new_run: RunMaker,
    recorder: Watcher,
    training: TrainingData,
    validation: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
    least: int,
    epochs: int,
) -> None:
    falling = iter(np.linspace(0.9, 0.1, 100))
    monkeypatch.setattr(loop, "auc", lambda grade, score: float(next(falling)))  # the first epoch stays the best
    run = new_run("training.epochs=5", "training.early_stopping=2", f"training.min_epochs={least}")
    watcher = recorder()
    train(run, training, validation, watcher)
    assert [best for _, best in watcher.rows] == [True] + [False] * (epochs - 1)


def test_one_grade_to_validate_on(
    new_run: RunMaker, recorder: Watcher, data: DataMaker, training: TrainingData
) -> None:
    run, watcher = new_run("training.min_epochs=1", "training.early_stopping=1", "training.epochs=6"), recorder()
    train(run, training, data([1, 1, 1], seed=4), watcher)
    history = run.history()
    assert all(row.val_auc is None for row in history)
    assert all(math.isfinite(row.val_loss) for row in history)
    lowest = min(history, key=lambda row: row.val_loss)
    assert [row.epoch for row, best in watcher.rows if best][-1] == lowest.epoch
    assert run.calibration().method == "none"


def test_loss_that_stays_not_finite(
    new_run: RunMaker, recorder: Watcher, data: DataMaker, validation: TrainingData
) -> None:
    broken = data([0, 1] * 6)
    for scan in broken.scans:
        scan[0, 3, 3, 3] = np.inf
    watcher = recorder()
    with pytest.raises(RunError, match=r"epoch 1, step 5: loss or gradient was not finite in 5 steps in a row; lower"):
        train(new_run("training.accumulation=1"), broken, validation, watcher)
    assert len(watcher.losses) == 4
    assert all(math.isnan(loss) for loss in watcher.losses)


def test_one_step_that_is_not_finite_changes_no_weight(
    session_of: Callable[..., Session],
) -> None:
    session = session_of()
    before = [p.detach().clone() for p in session.network.parameters()]
    losses = session.network(session.scans.gather(torch.arange(4))).logits.sum(dim=1)
    (losses.sum() * math.inf).backward()
    assert loop._step(session).item() > 0
    assert all(torch.equal(p, q) for p, q in zip(session.network.parameters(), before, strict=True))
    session.gradients.zero_()
    session.network(session.scans.gather(torch.arange(4))).logits.sum().backward()
    assert loop._step(session).item() == 0
    assert not all(torch.equal(p, q) for p, q in zip(session.network.parameters(), before, strict=True))


@pytest.fixture
def session_of(new_run: RunMaker, recorder: Watcher, training: TrainingData) -> Callable[..., Session]:
    def make(*overrides: str) -> Session:
        run = new_run(*overrides)
        return begin(run, Compute(torch.device("cpu"), None), training, recorder())

    return make


def test_accumulated_gradient_is_that_of_one_batch(session_of: Callable[..., Session]) -> None:
    off = [f"training.augment.{name}" for name in ("rotation=0", "zoom=0", "translation=0", "flips=false")]
    session = session_of("network.dropout=0.0", *off)
    session.network.eval()  # BatchNorm then treats each patient alike in any batch
    session.batch_step.use(sample_loss(session.settings, session.grades, 1))
    gradients = []
    for group in ([torch.arange(9)], [torch.arange(4), torch.arange(4, 9)], [*torch.split(torch.arange(9), 2)]):
        session.gradients.zero_()
        still = torch.eye(3, 4)
        visits = [Visit(indices, still.repeat(len(indices), 1, 1), None, None, None, 0) for indices in group]
        loop._accumulate(session, visits, threading.Event())
        gradients.append(torch.cat([p.grad.flatten() for p in session.network.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(gradients[2], gradients[0], atol=1e-5, rtol=1e-3)


def test_two_learning_rates(session_of: Callable[..., Session]) -> None:
    session = session_of("training.lr=1e-3", "training.head_lr=2e-3", "training.epochs=10", "training.warmup_epochs=2")
    loop._set_learning_rates(session, 14, 2)  # warm-up 4 of 20 steps: (14 - 4) / 16 of the cosine
    factor = 0.5 * (1 + math.cos(math.pi * 10 / 16))
    assert [group["lr"] for group in session.optimizer.param_groups] == pytest.approx([1e-3 * factor, 2e-3 * factor])
    assert [len(group["params"]) for group in session.optimizer.param_groups][1] == 2
    assert sum(len(group["params"]) for group in session.optimizer.param_groups) == len([*session.network.parameters()])


def test_overflowed_statistics_are_not_saved(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run()
    reference: list[Any] = []

    def poison(epoch: int, step: int) -> None:
        if epoch == 2:
            reference[0].backbone.bn1.running_var[0] = math.inf

    original = loop.begin

    def keep(*args: Any) -> Session:
        session = original(*args)
        reference.append(session.network)
        return session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "begin", keep)
        with pytest.raises(RunError, match=r"backbone\.bn1\.running_var is not finite after epoch 2.*bf16"):
            train(run, training, validation, recorder(poison))
    last = run.load_last()
    assert last is not None
    assert len(last.history) == 1
    assert all(torch.isfinite(x).all() for x in last.network.values())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_smallest_cohorts(
    new_run: RunMaker, recorder: Watcher, data: DataMaker, validation: TrainingData, count: int
) -> None:
    run = new_run("training.epochs=1")
    train(run, data([0, 1, 1, 1, 1][:count]), validation, recorder())
    assert len(run.history()) == 1


def test_unusable_data(new_run: RunMaker, recorder: Watcher, data: DataMaker, validation: TrainingData) -> None:
    run, good = new_run(), data([0, 1, 1])
    with pytest.raises(RunError, match="found 0 LGG, 3 HGG"):
        train(run, data([1, 1, 1]), validation, recorder())
    with pytest.raises(RunError, match="0 to validate on"):
        train(run, good, TrainingData(Cohort((), ()), []), recorder())
    with pytest.raises(RunError, match="training has 3 patients and 2 scans"):
        train(run, TrainingData(good.cohort, good.scans[:2]), validation, recorder())
    with pytest.raises(RunError, match="need one shape"):
        train(
            run,
            TrainingData(good.cohort, [*good.scans[:2], np.zeros((4, 16, 16, 17), np.float32)]),
            validation,
            recorder(),
        )
    with pytest.raises(RunError, match="batch_size to 2"):
        train(new_run("training.batch_size=1", name="ones"), good, validation, recorder())


def test_resuming_with_a_broken_best_file_fails_before_training(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run("training.epochs=1")
    train(run, training, validation, recorder())
    (run.folder / "best.safetensors").write_bytes(b"cut")
    with pytest.raises(RunError, match=r"best\.safetensors cannot be loaded"):
        train(run, training, validation, recorder())


def test_checkpoint_of_another_network(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run, other = new_run("training.epochs=1"), new_run("network.depth=18", name="other")
    train(run, training, validation, recorder())
    (other.folder / "last.pt").write_bytes((run.folder / "last.pt").read_bytes())
    with pytest.raises(RunError, match=r"settings\.toml changed: network\.depth = 18, which was 10"):
        train(other, training, validation, recorder())


def test_resumed_run_is_the_latest_again(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run("training.epochs=1")
    train(run, training, validation, recorder())
    new_run(name="newer")
    train(run, training, validation, recorder())
    assert (run.folder.parent / "latest").readlink() == Path("run")


@pytest.mark.parametrize(("rank", "writes"), [(0, True), (1, False)])
def test_of_several_ranks_that_resume_one_writes(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData, rank: int, writes: bool
) -> None:
    """Two that replaced one file at once failed, now and then."""
    run = new_run("training.epochs=1")
    train(run, training, validation, recorder())
    files = [run.folder / "steps.csv", run.folder / "history.csv", run.folder.parent / "latest"]
    for file in files:
        file.unlink()
    session = begin(run, Compute(torch.device("cpu"), None), training, recorder(), Ranks(rank, 2, rank))
    assert len(session.history) == 1
    assert [os.path.lexists(file) for file in files] == [writes] * 3


def test_pretrained_weights_are_loaded_and_reported(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData, tmp_path: Path
) -> None:
    file = tmp_path / "medicalnet.pth"
    run = new_run("training.epochs=1", f"network.pretrained={file}", "network.stem_stride=1")
    with pytest.raises(RunError, match="no file of pretrained weights"):
        train(run, training, validation, recorder())
    state = run.build_network().backbone.state_dict()
    torch.save({"state_dict": {f"module.{name}": x for name, x in state.items()}}, file)
    watcher = recorder()
    train(run, training, validation, watcher)
    assert any(note.startswith("Pretrained weights: 60 tensors loaded, 0 missing") for note in watcher.notes)
    assert "MedicalNet was trained with stem stride 2, not 1." in watcher.notes
    file.unlink()
    train(run, training, validation, recorder())  # resumed: not needed any more


def test_tensorboard(new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData) -> None:
    run = new_run("training.epochs=2", "training.tensorboard=true")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scalars, "SummaryWriter", None)
        with pytest.raises(RunError, match=r"pip install 'glioma-grade\[tensorboard\]'"):
            train(run, training, validation, recorder())
    train(run, training, validation, recorder())
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    values = [(event.step, event.value) for event in read.Scalars("val_loss")]
    assert values == [(row.epoch, pytest.approx(row.val_loss)) for row in run.history()]


def test_bf16_on_the_cpu(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run, watcher = new_run("training.epochs=1", "training.amp=bf16"), recorder()
    train(run, training, validation, watcher)
    assert watcher.notes == ["Training on cpu, mixed precision bf16."]
    # what is calibrated are float32 logits
    scans = torch.from_numpy(np.stack(validation.scans))
    np.testing.assert_allclose(run.validation().logits, run.load_best()(scans).logits.detach().numpy(), atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("amp", ["fp16", "bf16", "off"])
def test_on_a_gpu(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData, amp: str
) -> None:
    rates = ("training.lr=3e-3", "training.head_lr=3e-3", "training.warmup_epochs=3")
    long = ("training.epochs=30", "training.min_epochs=30", "training.batch_size=5", "network.dropout=0.0", *rates)
    run = new_run("training.device=cuda", f"training.amp={amp}", *long)
    with pytest.raises(Killed):
        train(run, training, validation, recorder(kill_at(3, 1)))
    train(run, training, validation, recorder())
    assert [row.epoch for row in run.history()] == list(range(1, 31))
    assert auc(run.validation().grades, run.validation().logit) == 1
