"""What the loop works on: network, optimiser, scans; begun fresh or restored from `last.pt`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from toolkit.config import Settings, TrainingSettings
from toolkit.errors import RunError
from toolkit.files import first_line
from toolkit.training.loop.batch import BatchStep
from toolkit.training.loop.batchnorm import share_statistics
from toolkit.training.loop.compute import Compute
from toolkit.training.loop.scans import ScanStore, TrainingData
from toolkit.training.network.network import GradeNet
from toolkit.training.network.pretrained import load_pretrained
from toolkit.training.processes.ranks import ALONE, Ranks, flat_gradients
from toolkit.training.runs.folder import point_latest
from toolkit.training.runs.run import Checkpoint, EpochRow, Run
from toolkit.training.runs.unchanged import check_checkpoint
from toolkit.training.watch import Progress


@dataclass
class Session:
    """What the loop works on."""

    settings: TrainingSettings
    compute: Compute
    network: GradeNet
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    history: list[EpochRow]
    scans: ScanStore
    spacing: float  # mm, of the scans
    grades: Tensor  # (N,) int64 on the device
    batch_step: BatchStep
    ranks: Ranks
    gradients: Tensor  # (P,) all of them: zeroed, summed over ranks and measured at once
    average: AveragedModel | None  # of the network's weights and buffers over the steps, where the settings ask for it
    steps: list[list[float]] = field(default_factory=list)  # mean loss of each optimiser step of each finished epoch
    skipped: int = 0  # optimiser steps in a row

    @property
    def judged(self) -> GradeNet:
        """The network that is validated, and kept when it is the best: the average where there is one."""
        return self.network if self.average is None else cast(GradeNet, self.average.module)

    def checkpoint(self) -> Checkpoint:
        """What `last.pt` keeps."""
        return Checkpoint(
            history=self.history,
            steps=self.steps,
            network=self.network.state_dict(),
            average=self.average.state_dict() if self.average else {},
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
        )


def check_data(settings: Settings, training: TrainingData, validation: TrainingData) -> None:
    """Refuse what cannot be trained on.

    Raises:
        RunError: patients without scans, a grade that is missing, or batches that BatchNorm cannot normalise.
    """
    for name, data in (("training", training), ("validation", validation)):
        if len(data.cohort) != len(data.scans):
            raise RunError(f"{name} has {len(data.cohort)} patients and {len(data.scans)} scans; give one for each.")
    counts = np.bincount(training.cohort.grade_array, minlength=2)
    if counts.min() == 0 or len(validation.cohort) == 0:
        raise RunError(
            f"training needs both grades and validation a patient; found {counts[0]} LGG, {counts[1]} HGG and"
            f" {len(validation.cohort)} to validate on."
        )
    smallest = 16 * settings.network.stem_stride  # voxels that the last feature map makes one of
    if settings.training.batch_size == 1 and all(n <= smallest for n in training.scans[0].shape[1:]):
        raise RunError(
            f"batches of 1 on a grid of {training.scans[0].shape[1:]} leave BatchNorm one value to normalise;"
            " set training.batch_size to 2."
        )


def begin(run: Run, compute: Compute, training: TrainingData, progress: Progress, ranks: Ranks = ALONE) -> Session:
    """Everything the loop works on: fresh, or as `last.pt` has it."""
    settings = run.settings.training
    torch.manual_seed(settings.seed)
    network = run.build_network()
    last = run.load_last()
    if last is not None:
        check_checkpoint(run, last)
    if last is None and run.settings.network.pretrained is not None:
        _load_pretrained(network, run.settings, progress)
    shared = settings.sync_batchnorm and ranks.size > 1
    network = compute.place(share_statistics(network) if shared else network)
    groups = [{"params": network.backbone.parameters()}, {"params": network.head.parameters()}]
    optimizer = torch.optim.AdamW(
        groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=compute.on_gpu or None
    )
    # fp16 needs a scale; for the others it is 1, and the scaler leaves out steps that are not finite.
    scale, patience = (2.0**16, 2000) if compute.amp is torch.float16 else (1.0, 2**31 - 1)
    scaler = torch.amp.GradScaler(compute.device.type, init_scale=scale, growth_interval=patience)
    # It makes its numbers at its first use, and a rank may have no batch in a step.
    scaler.scale(torch.zeros((), device=compute.device))
    session = Session(
        settings=settings,
        compute=compute,
        network=network,
        optimizer=optimizer,
        scaler=scaler,
        history=[],
        scans=store(training, compute, progress),
        spacing=run.settings.data.spacing,
        grades=torch.from_numpy(training.cohort.grade_array).to(compute.device),
        batch_step=BatchStep(network, scaler, compute, settings.cuda_graph and compute.on_gpu and not shared),
        ranks=ranks,
        gradients=flat_gradients(network),
        average=_average(network, settings, len(training.cohort)),
    )
    if last is not None:
        _restore(session, run, last)
        progress.note(f"Continuing after epoch {len(session.history)}.")
    return session


def _average(network: GradeNet, settings: TrainingSettings, patients: int) -> AveragedModel | None:
    """The setting is a decay per epoch, so that it means the same in a cohort of any size."""
    if not settings.ema:
        return None
    decay = settings.ema ** (settings.batch_size * settings.accumulation / patients)  # per step
    rule = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=rule, use_buffers=True)
    return average.requires_grad_(False)


def _restore(session: Session, run: Run, last: Checkpoint) -> None:
    try:
        session.network.load_state_dict(last.network)
        if session.average:
            session.average.load_state_dict(last.average)
        session.optimizer.load_state_dict(last.optimizer)
        if last.scaler:
            session.scaler.load_state_dict(last.scaler)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(
            f"{run.folder / 'last.pt'} does not fit the run's settings: {first_line(error)};"
            " delete it to train this run from the first epoch."
        ) from error
    run.load_best()  # a broken file is better known now than after the last epoch
    session.history, session.steps = last.history, last.steps
    if session.ranks.first:
        run.write_steps(last.steps)  # this file and the next may lack an epoch that `last.pt` has
        run.write_history(last.history)
        point_latest(run)


def _load_pretrained(network: GradeNet, settings: Settings, progress: Progress) -> None:
    file = settings.network.pretrained
    if file is None:
        return
    report = load_pretrained(network, file)
    progress.note(
        f"Pretrained weights: {len(report.matched)} tensors loaded, {len(report.missing)} missing,"
        f" {len(report.mismatched)} of another shape, {len(report.unexpected)} unexpected."
    )
    if settings.network.norm == "group":
        progress.note(
            "MedicalNet was trained with BatchNorm: GroupNorm takes over its gains and offsets, its statistics find no"
            " place."
        )
    if settings.network.stem_stride != 2:
        progress.note(f"MedicalNet was trained with stem stride 2, not {settings.network.stem_stride}.")


def store(data: TrainingData, compute: Compute, progress: Progress) -> ScanStore:
    """The scans, with a note where they do not fit on the GPU."""
    scans = ScanStore(data.scans, compute)
    if not scans.resident:
        progress.note(f"{len(scans)} scans ({scans.gigabytes:.1f} GB) stay in the host's memory: the GPU has no room.")
    return scans
