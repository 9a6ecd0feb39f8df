from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from toolkit.config import TrainingSettings
from toolkit.errors import RunError, RuntimeUnavailable, SettingsError
from toolkit.training.loop.compute import Compute, choose_compute, compute_notes, known_faults, reproducible
from toolkit.training.loop.scans import ScanStore, TrainingData
from toolkit.training.processes.ranks import Ranks

CPU = torch.device("cpu")


def test_the_cpu_computes_in_float32_unless_told_otherwise() -> None:
    assert choose_compute(TrainingSettings(device="cpu")) == Compute(CPU, None)
    assert choose_compute(TrainingSettings(device="cpu", amp="bf16")) == Compute(CPU, torch.bfloat16)
    with pytest.raises(SettingsError, match="needs a GPU"):
        choose_compute(TrainingSettings(device="cpu", amp="fp16"))


def test_a_gpu_that_is_not_there_is_not_replaced() -> None:
    with pytest.raises(RuntimeUnavailable, match="cuda:99 is not there"):
        choose_compute(TrainingSettings(device="cuda:99"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_auto_says_what_it_took() -> None:
    compute = choose_compute(TrainingSettings())
    assert compute_notes(compute, TrainingSettings()) == ("Training on cpu, mixed precision off.",)


def test_ranks_share_the_batches_of_a_step() -> None:
    settings, two = TrainingSettings(device="cpu"), Ranks(0, 2, 0)
    notes = compute_notes(choose_compute(settings, two), settings, two)
    assert notes[1] == (
        "2 processes share each optimiser step, which stays at 8 patients (batch 4 x accumulation 2): each takes whole"
        " batches."
    )
    odd = TrainingSettings(device="cpu", accumulation=3)
    assert "3 batches cannot be spread evenly over 2" in compute_notes(choose_compute(odd, two), odd, two)[2]


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (TrainingSettings(device="cpu"), r"has 2 batches, too few for 3 processes; set training\.accumulation to 3"),
        (TrainingSettings(device="cuda:1"), "'cuda:1' names one GPU for 3"),
        (TrainingSettings(device="cpu", sync_batchnorm=True), "sync_batchnorm needs GPUs"),
        (TrainingSettings(device="cuda", sync_batchnorm=True, batch_size=2), "cannot share batches of 2"),
    ],
)
def test_what_ranks_cannot_share(settings: TrainingSettings, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        choose_compute(settings, Ranks(0, 3, 0))


@pytest.mark.parametrize(
    "torch_version, cudnn, amp, words",
    [
        ("2.9.1+cu128", 91300, torch.float16, ["4 times slower"]),
        ("2.9.0", 91002, torch.bfloat16, ["4 times slower", "cuDNN 9.10 "]),
        ("2.10.0", 90800, torch.bfloat16, ["cuDNN 9.8 "]),
        ("2.10.0", 91100, torch.bfloat16, []),
        ("2.10.0", 91002, torch.float16, []),
        ("2.9.1", 91002, None, []),
    ],
)
def test_known_faults(torch_version: str, cudnn: int, amp: torch.dtype | None, words: list[str]) -> None:
    found = known_faults(torch_version, cudnn, amp)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))


def test_out_of_memory_becomes_a_sentence_and_flags_come_back() -> None:
    with pytest.raises(RunError, match=r"halve training\.batch_size"), reproducible(Compute(CPU, None)):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert not torch.are_deterministic_algorithms_enabled()


def test_store_gives_copies_of_the_right_scans(data: Callable[..., TrainingData]) -> None:
    scans = data([0, 1, 0, 1]).scans
    store = ScanStore(scans, Compute(CPU, None))
    batch = store.gather(torch.tensor([2, 0, 2]))
    np.testing.assert_array_equal(batch.numpy(), np.stack([scans[2], scans[0], scans[2]]))
    batch.zero_()
    np.testing.assert_array_equal(store.gather(torch.tensor([2]))[0].numpy(), scans[2])
    assert len(store) == 4
    assert store.resident


def test_store_reads_read_only_memory_maps(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("maps") / "a.npy"
    scan = np.random.default_rng(0).normal(size=(4, 3, 4, 5)).astype(np.float32)
    np.save(file, scan)
    store = ScanStore([np.load(file, mmap_mode="r")], Compute(CPU, None))
    np.testing.assert_array_equal(store.gather(torch.tensor([0]))[0].numpy(), scan)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_store_on_a_gpu(data: Callable[..., TrainingData], monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr("toolkit.training.loop.scans.RESIDENT_SHARE", share)
    scans = data([0, 1, 0, 1]).scans
    store = ScanStore(scans, choose_compute(TrainingSettings(device="cuda")))
    batch = store.gather(torch.tensor([3, 1]))
    assert store.resident == (share > 0)
    assert batch.device.type == "cuda"
    np.testing.assert_allclose(batch.cpu().numpy(), np.stack([scans[3], scans[1]]), atol=2e-3)
