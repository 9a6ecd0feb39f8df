"""Forward and backward of one batch; on a GPU replayed as a CUDA graph, so that no kernel waits for Python."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.training.loop.augment import warp
from toolkit.training.loop.balance import SampleLoss
from toolkit.training.loop.compute import Compute
from toolkit.training.network.network import GradeNet

WARM_UP = 3  # calls before a capture; cuDNN measures its algorithms in them


class Batch(NamedTuple):
    """What a step works on, on the device.

    Attributes:
        scans: (B, 4, X, Y, Z) float32.
        matrix: (B, 3, 4) float32, how each scan is moved (`sampling_matrix`).
        grades: (B,) int64.
        share: () float32, one over the patients of the optimiser step.
    """

    scans: Tensor
    matrix: Tensor
    grades: Tensor
    share: Tensor


class Answer(NamedTuple):
    """What came out, detached: logits (B, 2) and losses (B,)."""

    logits: Tensor
    losses: Tensor


class BatchStep:
    """Adds the gradients of a batch's share of the mean loss to those of the network.

    Args:
        network: on the device.
        scaler: of the loss.
        compute: device and precision.
        graph: capture each size of batch once and replay it; needs a GPU, and gradients that are zeroed in place.
    """

    def __init__(self, network: GradeNet, scaler: torch.amp.GradScaler, compute: Compute, graph: bool) -> None:
        self._network, self._scaler, self._compute = network, scaler, compute
        self._graph = graph
        self._loss, self._frozen = SampleLoss(None, None, 0.0), False
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph, Batch, Answer]] = {}

    def use(self, loss: SampleLoss, frozen: bool = False) -> None:
        """The loss from now on, and whether the network's BatchNorm statistics are frozen."""
        if not _equal(loss, self._loss) or frozen != self._frozen:
            self._captured.clear()  # a graph holds the loss and the modes that it was captured with
            self._loss, self._frozen = loss, frozen

    def __call__(self, batch: Batch) -> Answer:
        """Logits and losses of a batch; they are the caller's to keep."""
        if not self._graph:
            return self._forward_backward(batch)
        size = len(batch.grades)
        if size not in self._captured:
            self._captured[size] = self._capture(batch)
        graph, inputs, answer = self._captured[size]
        for static, given in zip(inputs, batch, strict=True):
            static.copy_(given)
        graph.replay()
        return Answer(answer.logits.clone(), answer.losses.clone())

    def _forward_backward(self, batch: Batch) -> Answer:
        scans = warp(batch.scans, batch.matrix)  # (B, 4, X, Y, Z)
        with self._compute.autocast():
            logits = self._network(scans.to(memory_format=self._compute.layout)).logits  # (B, 2)
        losses = self._loss(logits, batch.grades)  # (B,)
        self._scaler.scale(losses.sum() * batch.share).backward()  # type: ignore[no-untyped-call]
        return Answer(logits.detach(), losses.detach())

    def _capture(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, Answer]:
        """Record a step; what the warm-up changes (statistics, gradients, random numbers) is put back."""
        inputs = Batch(*(tensor.clone() for tensor in batch))
        gradients = [parameter.grad for parameter in self._network.parameters() if parameter.grad is not None]
        touched = [*self._network.buffers(), *gradients]
        before = [tensor.clone() for tensor in touched]
        random = torch.cuda.get_rng_state(self._compute.device)
        stream = torch.cuda.Stream(self._compute.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._compute.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._forward_backward(inputs)
        torch.cuda.current_stream(self._compute.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = self._forward_backward(inputs)
        torch.cuda.set_rng_state(random, self._compute.device)
        for tensor, value in zip(touched, before, strict=True):
            tensor.copy_(value)
        return graph, inputs, answer


def _equal(one: SampleLoss, other: SampleLoss) -> bool:
    pairs = ((one.margins, other.margins), (one.weights, other.weights))
    same = all(torch.equal(a, b) if a is not None and b is not None else a is b for a, b in pairs)
    return same and one.label_smoothing == other.label_smoothing
