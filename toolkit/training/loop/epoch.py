"""What an epoch does before it does it: whom each step visits, how each scan is moved, what is left out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from toolkit.training.loop.augment import random_kept, random_matrix
from toolkit.training.loop.balance import epoch_order
from toolkit.training.loop.intensity import random_intensity
from toolkit.training.loop.schedule import accumulation_groups, epoch_generator, epoch_seeds
from toolkit.training.loop.session import Session
from toolkit.training.loop.slices import random_slices


class Visit(NamedTuple):
    """A batch before its scans are there.

    Attributes:
        indices: (B,) positions of the patients, on the CPU.
        matrix: (B, 3, 4) how each scan is moved, on the device.
        kept: (B, 4) factors of the modalities, on the device; None: all are kept.
        slices: (B, 4, 3) of `random_slices`, on the device; None: as they are.
        intensity: (B, 4, 2) of `random_intensity`, on the device; None: as it is.
        seed: of the dropout.
    """

    indices: Tensor
    matrix: Tensor
    kept: Tensor | None
    slices: Tensor | None
    intensity: Tensor | None
    seed: int


def plan_epoch(session: Session, epoch: int) -> list[list[Visit]]:
    """The optimiser steps of an epoch, each a list of batches; the same on every rank, and for any number of ranks.

    Args:
        session: whose settings, patients and grid.
        epoch: counted from 1.
    """
    settings, device = session.settings, session.compute.device
    order = epoch_order(session.grades.cpu(), settings.sampler, epoch_generator(settings.seed, epoch, "sampler"))
    least = max(2, session.ranks.size if settings.sync_batchnorm else 0)  # no rank may be without a patient then
    groups = accumulation_groups(order, settings.batch_size, settings.accumulation, least)
    generator = epoch_generator(settings.seed, epoch, "augmentation")
    modalities, *size = session.scans.shape
    matrix = random_matrix(len(order), size, settings.augment, generator).to(device)  # (N, 3, 4)
    share = settings.augment.modality_dropout
    kept = random_kept(len(order), modalities, share, generator).to(device) if share else None  # (N, 4)
    thickest = settings.augment.slice_thickness / session.spacing  # voxels
    slices = random_slices(len(order), modalities, thickest, generator).to(device) if thickest else None  # (N, 4, 3)
    limit = settings.augment.intensity
    intensity = random_intensity(len(order), modalities, limit, generator).to(device) if limit else None  # (N, 4, 2)
    seeds = iter(epoch_seeds(settings.seed, epoch, "dropout", sum(len(group) for group in groups)))
    steps: list[list[Visit]] = []
    at = 0
    for group in groups:
        steps.append([])
        for indices in group:
            rows = slice(at, at + len(indices))
            drawn = _rows(kept, rows), _rows(slices, rows), _rows(intensity, rows)
            steps[-1].append(Visit(indices, matrix[rows], *drawn, next(seeds)))
            at = rows.stop
    return steps


def _rows(drawn: Tensor | None, rows: slice) -> Tensor | None:
    return None if drawn is None else drawn[rows]
