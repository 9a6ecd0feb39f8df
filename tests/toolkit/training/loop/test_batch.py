"""A step's gradients against plain autograd, and a CUDA graph against no graph."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from toolkit.config import NetworkSettings, TrainingSettings
from toolkit.training.loop.balance import SampleLoss
from toolkit.training.loop.batch import Batch, BatchStep
from toolkit.training.loop.compute import choose_compute
from toolkit.training.network.network import GradeNet, build_network
from toolkit.training.processes.ranks import flat_gradients

PLAIN = SampleLoss(None, None, 0.0)
WEIGHTED = SampleLoss(None, torch.tensor([1.5, 0.5]), 0.0)


def network() -> GradeNet:
    torch.manual_seed(0)
    return build_network(NetworkSettings(depth=10, dropout=0.0), cosine_head=False).train()


def batch(seed: int, size: int = 2, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    scans = torch.randn(size, 4, 32, 32, 32, generator=generator)
    still = torch.eye(3, 4).repeat(size, 1, 1)
    return Batch(scans, still, torch.arange(size) % 2, torch.tensor(1 / count))


def gradients(net: GradeNet) -> list[Tensor]:
    return [p.grad.float().cpu() for p in net.parameters() if p.grad is not None]


def test_two_batches_add_up_to_the_gradient_of_the_mean() -> None:
    compute = choose_compute(TrainingSettings(device="cpu"))
    ours, plain = network(), network()
    step = BatchStep(ours, torch.amp.GradScaler("cpu", enabled=False), compute, graph=False)
    step.use(WEIGHTED)
    flat_gradients(ours)
    answers = [step(batch(seed, count=4)) for seed in (0, 1)]

    total = torch.zeros(())
    for seed in (0, 1):
        given = batch(seed)
        losses = functional.cross_entropy(plain(given.scans).logits, given.grades, reduction="none")
        total = total + (losses * torch.tensor([1.5, 0.5])[given.grades]).sum() / 4
    total.backward()
    torch.testing.assert_close(sum(answer.losses.sum() / 4 for answer in answers), total.detach(), atol=1e-4, rtol=0)
    for mine, expected in zip(gradients(ours), gradients(plain), strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-2)  # an identity warp rounds


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("amp", ["fp16", "bf16", "off"])
def test_a_graph_gives_what_plain_calls_give(amp: str) -> None:
    """Two sizes of batch, two losses, statistics and gradients included."""
    compute = choose_compute(TrainingSettings(device="cuda", amp=amp))
    nets, seen = [], []
    for graph in (False, True):
        net = compute.place(network())
        step = BatchStep(net, torch.amp.GradScaler("cuda", enabled=amp == "fp16", init_scale=256.0), compute, graph)
        flat, answers = flat_gradients(net), []
        for loss in (PLAIN, SampleLoss(None, torch.tensor([1.5, 0.5], device="cuda"), 0.0)):
            step.use(loss)
            flat.zero_()
            for seed, size in ((0, 2), (1, 2), (2, 3), (3, 2)):
                answers.append(step(Batch(*(tensor.cuda() for tensor in batch(seed, size, 9)))))
        nets.append(net)
        seen.append(answers)
    tolerance = {"fp16": 2e-2, "bf16": 1e-1, "off": 5e-3}[amp]
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one.losses, other.losses, atol=tolerance, rtol=tolerance)
    for one, other in zip(nets[0].buffers(), nets[1].buffers(), strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)
    first, second = (torch.cat([g.flatten() for g in gradients(net)]) for net in nets)
    assert functional.cosine_similarity(first, second, dim=0) > 0.99
