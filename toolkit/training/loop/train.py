"""The training: one loop, from a run folder to a trained and calibrated network."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from toolkit.errors import Interrupted, RunError
from toolkit.evaluation.metrics import auc
from toolkit.evaluation.stability import best_epoch
from toolkit.training.loop.balance import sample_loss
from toolkit.training.loop.batch import Answer, Batch
from toolkit.training.loop.batchnorm import RunningStatistics, freeze_statistics, settled
from toolkit.training.loop.compute import Compute, choose_compute, compute_notes, environment, reproducible
from toolkit.training.loop.epoch import Visit, plan_epoch
from toolkit.training.loop.intensity import change_intensity
from toolkit.training.loop.scalars import scalar_log
from toolkit.training.loop.scans import ScanStore, TrainingData
from toolkit.training.loop.schedule import lr_factor, should_stop
from toolkit.training.loop.session import Session, begin, check_data, store
from toolkit.training.loop.slices import thicken
from toolkit.training.loop.tracker import tracked
from toolkit.training.network.network import GradeNet
from toolkit.training.processes.interrupt import stop_on_interrupt
from toolkit.training.processes.ranks import ALONE, Ranks
from toolkit.training.runs.outcome import write_outcome
from toolkit.training.runs.run import EpochRow, Run, ValidationTable
from toolkit.training.watch import Progress

# Optimiser steps in a row that may be skipped. fp16 starts with a gradient scale of 65536 and halves it at each skip.
SKIPS_ALLOWED = 4
SKIPS_ALLOWED_FP16 = 20


class _Report(NamedTuple):
    """What the host has to know of an optimiser step, on its way from the device.

    Attributes:
        step: counted from 1.
        numbers: (3,) on the CPU: mean loss; above 0 where the step was skipped; above 0 where a rank is to stop.
        ready: set when they are there; None: they are.
    """

    step: int
    numbers: Tensor
    ready: torch.cuda.Event | None


class _Epoch(NamedTuple):
    """What an epoch of training saw."""

    logits: Tensor  # (n, 2) on the CPU
    grades: Tensor  # (n,) on the CPU
    losses: Tensor  # (n,) on the CPU
    steps: list[float]  # mean loss of each optimiser step
    seconds: float


def train(run: Run, training: TrainingData, validation: TrainingData, progress: Progress, ranks: Ranks = ALONE) -> None:
    """Train a run to its end, from where it was left.

    Everything random follows from (seed, epoch), so that on the CPU a training that was cut off and resumed ends with
    the same bits as one that was not; and the patients of a step do not depend on how many ranks share it.

    Args:
        run: a new run, or one with a `last.pt`.
        training: at least two patients, both grades.
        validation: at least one patient; with one grade only, the validation loss takes the place of the AUC.
        progress: is told of every step.
        ranks: who shares the work; all are given the same, and rank 0 writes.

    Raises:
        Interrupted: SIGINT; the run can be resumed.
        RunError: the data, a checkpoint or the numbers are unusable, or another rank has ended.
        RuntimeUnavailable: the device asked for is not there.
        SettingsError: the settings do not go with the device, or with that number of ranks.
    """
    settings = run.settings.training
    check_data(run.settings, training, validation)
    compute = choose_compute(settings, ranks)
    for text in compute_notes(compute, settings, ranks):
        progress.note(text)
    if ranks.first:
        run.write("environment.json", environment(compute, ranks))
    with reproducible(compute, settings.deterministic), stop_on_interrupt() as stop:
        session = begin(run, compute, training, progress, ranks)
        validation_scans = store(validation, compute, progress)
        with (
            scalar_log(run.folder, settings.tensorboard and ranks.first, len(session.history)) as log,
            tracked(run, ranks.first) as track,
        ):
            while len(session.history) < settings.epochs and not should_stop(session.history, settings):
                epoch = len(session.history) + 1
                if ranks.any(stop.is_set()):  # SIGINT reaches the ranks at different times
                    raise _stopped(epoch)
                start = time.perf_counter()
                seen = _train_epoch(session, epoch, progress, stop)
                _check_statistics(session.network, epoch)
                logits = _infer(session.judged, validation_scans, settings.batch_size, compute, ranks)
                row = _row(session, seen, logits, validation.cohort.grade_array, time.perf_counter() - start)
                session.history.append(row)
                session.steps.append(seen.steps)
                best = best_epoch(session.history) is row
                if best and ranks.first:
                    run.save_best(session.judged)
                if ranks.first:
                    run.save_last(session.checkpoint())
                log(row)
                track(row)
                progress.epoch_done(row, best)
        network = compute.place(ranks.in_turn(run.load_best))
        exact = dataclasses.replace(compute, amp=None)
        logits = _infer(network, validation_scans, settings.batch_size, exact, ranks)
    if ranks.first:
        names = tuple(patient.id for patient in validation.cohort.patients)
        write_outcome(run, ValidationTable(names, validation.cohort.grade_array, logits.double().numpy()))
    ranks.wait()  # no process continues before the run is complete


def _train_epoch(session: Session, epoch: int, progress: Progress, stop: threading.Event) -> _Epoch:
    """One pass over the sampled patients."""
    settings, start = session.settings, time.perf_counter()
    steps = plan_epoch(session, epoch)
    frozen = 0 < settings.frozen_bn_epoch <= epoch and settled(session.network)
    session.network.train()
    if frozen:
        freeze_statistics(session.network)
    session.batch_step.use(sample_loss(settings, session.grades, epoch), frozen)
    progress.epoch_started(epoch, len(steps))
    logits, losses = [], []
    reports: list[_Report] = []
    for number, visits in enumerate(steps):
        _set_learning_rates(session, (epoch - 1) * len(steps) + number, len(steps))
        session.gradients.zero_()
        answer, to_stop = _accumulate(session, visits, stop)
        skipped = _step(session)
        logits.append(answer.logits)
        losses.append(answer.losses)
        reports.append(_report(number + 1, answer.losses.mean(), skipped, to_stop))
        last = number + 1 == len(steps)
        while reports and (last or reports[0].ready is None or len(reports) > 1):
            _settle(session, reports.pop(0), epoch, progress)  # on a GPU one step late, so that it never waits for us
    visited = torch.cat([visit.indices for visits in steps for visit in visits])
    grades = session.grades[visited.to(session.grades.device)]
    means = torch.stack([part.mean() for part in losses]).tolist()
    seconds = time.perf_counter() - start
    return _Epoch(torch.cat(logits).cpu(), grades.cpu(), torch.cat(losses).cpu(), means, seconds)


def _accumulate(session: Session, visits: Sequence[Visit], stop: threading.Event) -> tuple[Answer, Tensor]:
    """Gradients of the mean loss over the batches of a step.

    Returns:
        Logits (n, 2) and losses (n,) of all its patients; (1,), above 0 where one of the ranks is to stop.
    """
    device, sizes = session.compute.device, [len(visit.indices) for visit in visits]
    share = torch.full((), 1 / sum(sizes), device=device)
    own = session.ranks.rows(sizes, session.settings.sync_batchnorm)
    several = session.ranks.size > 1
    statistics = RunningStatistics(session.network, [rows.stop > rows.start for rows in own]) if several else None
    all_logits, all_losses = torch.zeros(sum(sizes), 2, device=device), torch.zeros(sum(sizes), device=device)
    parts = zip(visits, own, torch.split(all_logits, sizes), torch.split(all_losses, sizes), strict=True)
    for visit, rows, logits, losses in parts:
        indices = visit.indices[rows]
        if len(indices):
            scans = session.scans.gather(indices)  # (B, 4, X, Y, Z)
            if visit.slices is not None:
                scans = thicken(scans, visit.slices[rows])
            if visit.intensity is not None:
                scans = change_intensity(scans, visit.intensity[rows])
            if visit.kept is not None:
                scans = scans * visit.kept[rows, :, None, None, None]
            grades = session.grades[indices.to(device, non_blocking=True)]
            torch.manual_seed(visit.seed)
            logits[rows], losses[rows] = session.batch_step(Batch(scans, visit.matrix[rows], grades, share))
    to_stop = torch.full((1,), float(stop.is_set()), device=device)
    if statistics is not None:
        contribution = statistics.contribution()
        session.ranks.sum([session.gradients])
        session.ranks.sum([all_logits, all_losses, contribution, to_stop])
        statistics.put(contribution)
    return Answer(all_logits, all_losses), to_stop


def _step(session: Session) -> Tensor:
    """An optimiser step, left out where a gradient is not finite; (): above 0 if so."""
    session.scaler.unscale_(session.optimizer)
    norm = torch.linalg.vector_norm(session.gradients)
    if session.settings.clip is not None:  # of the whole step, whose batches have been added up
        torch.nn.utils.clip_grads_with_norm_(session.network.parameters(), session.settings.clip, norm)
    session.scaler.step(session.optimizer)  # which decides on the device
    session.scaler.update()
    skipped = (~torch.isfinite(norm)).float()
    if session.average is not None and not skipped.item():
        session.average.update_parameters(session.network)
    return skipped


def _report(step: int, loss: Tensor, skipped: Tensor, to_stop: Tensor) -> _Report:
    numbers = torch.cat([loss[None], skipped[None], to_stop])
    if not numbers.is_cuda:
        return _Report(step, numbers, None)
    sent = numbers.to("cpu", non_blocking=True)
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
    ready.record()
    return _Report(step, sent, ready)


def _settle(session: Session, report: _Report, epoch: int, progress: Progress) -> None:
    """Take note of a step."""
    if report.ready is not None:
        report.ready.synchronize()
    loss, skipped, to_stop = report.numbers.tolist()
    session.skipped = session.skipped + 1 if skipped else 0
    _check_skips(session, epoch, report.step)
    progress.step(loss)
    if to_stop:
        raise _stopped(epoch)


@torch.inference_mode()
def _infer(network: GradeNet, scans: ScanStore, batch_size: int, compute: Compute, ranks: Ranks) -> Tensor:
    """Logits (N, 2) of all scans, on the CPU; each rank answers for some of them."""
    network.eval()
    found = torch.zeros(len(scans), 2, device=compute.device)
    for indices in torch.split(torch.arange(len(scans)), batch_size)[ranks.rank :: ranks.size]:
        batch = scans.gather(indices).to(memory_format=compute.layout)
        with compute.autocast():
            logits = network(batch).logits
        if not torch.isfinite(logits).all():
            logits = network(batch).logits  # fp16 ends at 65504; float32 does not
        found[indices.to(compute.device)] = logits.float()
    ranks.sum([found])
    return found.cpu()


def _row(session: Session, seen: _Epoch, logits: Tensor, grades: np.ndarray[Any, Any], seconds: float) -> EpochRow:
    """The line of an epoch that has just been trained and validated."""
    epoch = len(session.history) + 1
    if not torch.isfinite(logits).all():
        raise RunError(f"validation logits of epoch {epoch} are not finite; lower training.lr, or look at the scans.")
    finite = torch.isfinite(seen.losses)  # those of skipped steps may not be
    if not finite.any():
        raise RunError(f"no loss of epoch {epoch} is finite; lower training.lr or set training.amp to off.")
    backbone, head = session.optimizer.param_groups
    return EpochRow(
        epoch=epoch,
        train_loss=seen.losses[finite].double().mean().item(),
        train_auc=auc(seen.grades[finite].numpy(), _score(seen.logits[finite])),
        val_loss=functional.cross_entropy(logits.double(), torch.from_numpy(grades)).item(),
        val_auc=auc(grades, _score(logits)),
        lr=backbone["lr"],
        head_lr=head["lr"],
        seconds=seconds,
        images_per_second=len(seen.losses) / seen.seconds,
    )


def _set_learning_rates(session: Session, step: int, steps_per_epoch: int) -> None:
    settings = session.settings
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    factor = lr_factor(step, warmup, settings.epochs * steps_per_epoch)
    backbone, head = session.optimizer.param_groups
    backbone["lr"], head["lr"] = factor * settings.lr, factor * settings.head_lr


def _score(logits: Tensor) -> np.ndarray[Any, Any]:
    return (logits[:, 1] - logits[:, 0]).double().numpy()


def _check_statistics(network: GradeNet, epoch: int) -> None:
    """BatchNorm's running statistics also take in batches whose step was skipped (pytorch issue 88474)."""
    for name, buffer in network.named_buffers():
        if not torch.isfinite(buffer).all():
            raise RunError(
                f"{name} is not finite after epoch {epoch}: a batch overflowed; train again with training.amp set to"
                " bf16 or off."
            )


def _check_skips(session: Session, epoch: int, step: int) -> None:
    allowed = SKIPS_ALLOWED_FP16 if session.compute.amp is torch.float16 else SKIPS_ALLOWED
    if session.skipped > allowed:
        raise RunError(
            f"epoch {epoch}, step {step}: loss or gradient was not finite in {session.skipped} steps in a row;"
            " lower training.lr, set training.amp to off, or look for scans that are not finite."
        )


def _stopped(epoch: int) -> Interrupted:
    done = f"after epoch {epoch - 1}" if epoch > 1 else "before its first epoch ended"
    return Interrupted(f"stopped {done}; `grade train --resume` continues.")
