"""Levers that may steady a training: averaged weights, frozen statistics, GroupNorm, clipping, dropped modalities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.training.loop import batchnorm
from toolkit.training.loop import train as loop
from toolkit.training.loop.compute import Compute
from toolkit.training.loop.scans import TrainingData
from toolkit.training.loop.session import Session, begin
from toolkit.training.loop.train import train
from toolkit.training.runs.folder import open_run
from toolkit.training.runs.run import Run

RunMaker = Callable[..., Run]
Watcher = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("narrow", "short_report")

LEVERS = {
    "ema": ("training.ema=0.9",),
    "frozen": ("training.frozen_bn_epoch=2",),
    "group": ("network.norm=group",),
    "clip": ("training.clip=0.1",),
    "weights": ("training.class_weights=true", "training.sampler=shuffle"),
    "modality": ("training.augment.modality_dropout=0.5",),
    "slices": ("training.augment.slice_thickness=20",),
    "intensity": ("training.augment.intensity=0.5",),
}


class Killed(Exception):
    """The process dies here."""


def kill(epoch: int, step: int) -> None:
    if (epoch, step) == (2, 1):
        raise Killed


@pytest.fixture
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of these few patients is enough."""
    monkeypatch.setattr(batchnorm, "SETTLED", 4)


@pytest.fixture
def session_of(new_run: RunMaker, recorder: Watcher, training: TrainingData) -> Callable[..., Session]:
    def make(*overrides: str) -> Session:
        return begin(new_run(*overrides), Compute(torch.device("cpu"), None), training, recorder())

    return make


def taken(session: Session) -> bool:
    """Whether the step is not left out."""
    return loop._step(session).item() == 0


def still_step(session: Session, value: float) -> bool:
    """A step that changes no weight, with bias and a statistic set by hand."""
    bias, statistic = session.network.head.linear.bias, session.network.backbone.bn1.running_mean  # type: ignore[union-attr]
    with torch.no_grad():
        bias.fill_(value)
        statistic.fill_(10 * value)
    for group in session.optimizer.param_groups:
        group["lr"] = 0.0
    session.gradients.zero_()
    return taken(session)


def test_average_by_hand(session_of: Callable[..., Session]) -> None:
    # Steps of 2 x 2 of 9 patients: 0.75 a step is 0.75 to the power of 9/4 an epoch.
    session = session_of(f"training.ema={0.75 ** (9 / 4)}")
    seen = []
    for value in (1.0, 5.0, 5.0):  # the first step is taken over; then 3/4 * 1 + 1/4 * 5 = 2, 3/4 * 2 + 1/4 * 5 = 2.75
        assert still_step(session, value)
        head, stem = session.judged.head, session.judged.backbone.bn1
        seen.append((head.linear.bias[0].item(), stem.running_mean[0].item()))  # type: ignore[union-attr]
    np.testing.assert_allclose(seen, [(1.0, 10.0), (2.0, 20.0), (2.75, 27.5)], rtol=1e-6)


def test_skipped_step_is_not_averaged(session_of: Callable[..., Session]) -> None:
    session = session_of("training.ema=0.75")
    still_step(session, 1.0)
    with torch.no_grad():
        session.network.head.linear.bias.fill_(9.0)  # type: ignore[union-attr]
    session.gradients[3] = float("nan")
    assert not taken(session)
    assert session.judged.head.linear.bias[0].item() == 1.0  # type: ignore[union-attr]


def test_without_average_the_network_itself_is_judged(session_of: Callable[..., Session]) -> None:
    session = session_of()
    assert session.judged is session.network


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_clipping_by_hand(session_of: Callable[..., Session], scale: float) -> None:
    """A gradient of 3 and 4 has norm 5; scaled up as fp16 asks for, it is clipped after it was scaled back."""
    session = session_of("training.clip=1.0")
    session.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    session.scaler.scale(torch.ones(()))
    bias = session.network.head.linear.bias  # type: ignore[union-attr]
    bias.grad.copy_(scale * torch.tensor([3.0, 4.0]))
    assert taken(session)
    torch.testing.assert_close(bias.grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)
    bias.grad.copy_(scale * torch.tensor([0.3, 0.4]))  # below the limit: left alone
    assert taken(session)
    torch.testing.assert_close(bias.grad, torch.tensor([0.3, 0.4]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("lever", LEVERS)
def test_killed_and_resumed_ends_with_the_same_bits(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData, lever: str
) -> None:
    whole, broken = new_run(*LEVERS[lever], name="whole"), new_run(*LEVERS[lever], name="broken")
    train(whole, training, validation, recorder())
    with pytest.raises(Killed):
        train(broken, training, validation, recorder(kill))
    train(open_run(broken.folder), training, validation, recorder())
    for name in ("best.safetensors", "validation.csv", "steps.csv"):
        assert (broken.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


@pytest.mark.usefixtures("soon_settled")
@pytest.mark.parametrize("lever", ["plain", *LEVERS])
def test_each_lever_changes_the_training(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData, lever: str
) -> None:
    """Against a plain training: the losses of `stable` differ, except that averaging changes only what is judged."""
    plain, changed = new_run(name="plain"), new_run(*LEVERS.get(lever, ()), name="changed")
    for run in (plain, changed):
        train(run, training, validation, recorder())
    same_losses = plain.step_losses() == changed.step_losses()
    same_answers = np.array_equal(plain.validation().logits, changed.validation().logits)
    assert (same_losses, same_answers) == {"plain": (True, True), "ema": (True, False)}.get(lever, (False, False))


def test_the_average_is_kept_and_judged(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run("training.ema=0.9", "training.epochs=1")
    train(run, training, validation, recorder())
    last, best = run.load_last(), run.load_best()
    assert last is not None
    for name, tensor in best.state_dict().items():
        assert torch.equal(tensor, last.average[f"module.{name}"]), name
    assert not torch.equal(best.backbone.conv1.weight, last.network["backbone.conv1.weight"])
    scans = torch.from_numpy(np.stack(validation.scans))
    np.testing.assert_allclose(run.validation().logits, best(scans).logits.detach().numpy(), atol=1e-5)


@pytest.mark.usefixtures("soon_settled")
def test_frozen_statistics_stand_still_from_their_epoch_on(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run = new_run("training.frozen_bn_epoch=2")
    with pytest.raises(Killed):
        train(run, training, validation, recorder(kill))
    first = run.load_last()
    train(run, training, validation, recorder())
    last = run.load_last()
    assert first is not None
    assert last is not None
    assert len(last.history) == 3
    name = "backbone.layer2.0.bn1.running_mean"
    assert first.network[name].abs().max() > 0
    assert torch.equal(first.network[name], last.network[name])
    assert not torch.equal(first.network["backbone.conv1.weight"], last.network["backbone.conv1.weight"])


@pytest.mark.parametrize("settled, counted", [(4, 4), (5, 8)])
def test_statistics_are_not_frozen_before_they_have_settled(
    new_run: RunMaker,
    recorder: Watcher,
    training: TrainingData,
    validation: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
    settled: int,
    counted: int,
) -> None:
    """Nine patients are four batches an epoch: a fifth is seen in the second epoch alone."""
    monkeypatch.setattr(batchnorm, "SETTLED", settled)
    run = new_run("training.frozen_bn_epoch=2", "training.epochs=2")
    train(run, training, validation, recorder())
    last = run.load_last()
    assert last is not None
    assert last.network["backbone.bn1.num_batches_tracked"] == counted


def test_steps_are_the_losses_that_were_told(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData
) -> None:
    run, watcher = new_run(), recorder()
    train(run, training, validation, watcher)
    assert run.step_losses() == watcher.losses
    assert len(watcher.losses) == 6  # 3 epochs of 2 steps


def test_medicalnet_weights_into_group_norm(
    new_run: RunMaker, recorder: Watcher, training: TrainingData, validation: TrainingData, tmp_path: Any
) -> None:
    file = tmp_path / "medicalnet.pth"
    state = new_run(name="batch").build_network().backbone.state_dict()
    torch.save({"state_dict": {f"module.{name}": x for name, x in state.items()}}, file)
    run, watcher = new_run("network.norm=group", f"network.pretrained={file}", "training.epochs=1"), recorder()
    train(run, training, validation, watcher)
    # 12 convolutions, 12 gains and 12 offsets find their place; 12 means and 12 variances do not
    assert any("36 tensors loaded, 0 missing, 0 of another shape, 24 unexpected" in note for note in watcher.notes)
    assert any("GroupNorm takes over its gains and offsets" in note for note in watcher.notes)
