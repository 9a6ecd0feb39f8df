"""Training steps on a GPU: the epoch loop against its own step on constant data, and against MONAI's usual loader.

    python -m benchmarks.train            # random scans of BraTS 2018's size; no files needed
    python -m benchmarks.train --peer     # also MONAI PersistentDataset + DataLoader with the same network

`step` runs forward, backward and optimiser on one batch that never changes: no epoch loop can be faster. `epoch` is
what `grade train` does: sampling, gathering, augmentation, step, bookkeeping.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from benchmarks.common import arguments, report
from toolkit.config import Settings, load_settings
from toolkit.data.cohort.split import Split
from toolkit.data.patients import Cohort, Patient
from toolkit.training.loop import train as loop
from toolkit.training.loop.batch import Batch
from toolkit.training.loop.compute import Compute, choose_compute, reproducible
from toolkit.training.loop.scans import TrainingData
from toolkit.training.loop.session import Session, begin
from toolkit.training.processes.interrupt import stop_on_interrupt
from toolkit.training.runs.folder import create_run
from toolkit.training.runs.run import EpochRow, Run

HGG, LGG = 168, 60  # training patients of BraTS 2018


class Silent:
    """Nobody watches."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def epoch_started(self, epoch: int, steps: int) -> None:
        """Say nothing."""

    def step(self, loss: float) -> None:
        """Say nothing."""

    def epoch_done(self, row: EpochRow, best: bool) -> None:
        """Say nothing."""


def random_data(settings: Settings) -> TrainingData:
    """Scans of noise, as many as BraTS 2018 trains on; a few arrays serve for all."""
    rng = np.random.default_rng(0)
    few = [rng.standard_normal((4, *settings.data.shape), np.float32) for _ in range(8)]
    grades = (1,) * HGG + (0,) * LGG
    patients = tuple(Patient(f"p{number:03}", Path(f"p{number:03}")) for number in range(len(grades)))
    return TrainingData(Cohort(patients, grades), [few[number % 8] for number in range(len(grades))])


def seconds(function: Callable[[], object], times: int) -> float:
    """Mean wall time on the GPU, after one call that does not count."""
    function()
    torch.cuda.synchronize()
    start = perf_counter()
    for _ in range(times):
        function()
    torch.cuda.synchronize()
    return (perf_counter() - start) / times


def constant_step(session: Session) -> float:
    """Seconds a volume of an optimiser step on one batch that never changes."""
    size, parts = session.settings.batch_size, session.settings.accumulation
    indices = torch.arange(size)
    scans = session.scans.gather(indices)
    still = torch.eye(3, 4, device=scans.device).repeat(size, 1, 1)
    share = torch.tensor(1 / (size * parts), device=scans.device)
    batch = Batch(scans, still, session.grades[:size], share)

    def step() -> None:
        session.gradients.zero_()
        for _ in range(parts):
            session.batch_step(batch)
        loop._step(session)

    return seconds(step, 20) / (size * parts)


def epoch_loop(session: Session) -> float:
    """Seconds a volume of the loop of `grade train`."""
    with stop_on_interrupt() as stop:
        taken = seconds(lambda: loop._train_epoch(session, 1, Silent(), stop), 3)
    return taken / len(session.grades)


def measure(folder: Path, name: str, compute: Compute, overrides: tuple[str, ...]) -> tuple[object, ...]:
    """One row: what was set, milliseconds a volume of step and loop, their ratio."""
    settings = load_settings(None, None, overrides)
    data = random_data(settings)
    run: Run = create_run(folder, name.replace(" ", "_"), settings, Split(data.cohort, data.cohort))
    with reproducible(compute):
        session = begin(run, compute, data, Silent())
        session.network.train()
        step, epoch = constant_step(session), epoch_loop(session)
    return name, 1000 * step, 1000 * epoch, step / epoch, 1 / epoch


def monai_loop(settings: Settings, compute: Compute, folder: Path) -> float:
    """Seconds a volume of MONAI's usual training: PersistentDataset of NIfTI files, random transforms, 4 workers."""
    import nibabel as nib
    from monai import transforms
    from monai.data import DataLoader, PersistentDataset

    rng = np.random.default_rng(0)
    items = []
    for number in range(24):
        file = folder / f"monai{number}.nii"
        image = rng.integers(0, 900, (240, 240, 155, 4), np.int16)
        nib.save(nib.Nifti1Image(image, np.diag([-1.0, -1, 1, 1])), file)
        items.append({"image": str(file), "label": number % 2})
    chain = transforms.Compose([
        transforms.LoadImaged(["image"], ensure_channel_first=True),
        transforms.Orientationd(["image"], axcodes="RAS", labels=None),
        transforms.Spacingd(["image"], pixdim=(settings.data.spacing,) * 3, mode="bilinear"),
        transforms.ResizeWithPadOrCropd(["image"], settings.data.shape),
        transforms.NormalizeIntensityd(["image"], nonzero=True, channel_wise=True),
        transforms.RandAffined(
            ["image"], prob=1.0, rotate_range=(0.17,) * 3, scale_range=(0.08,) * 3, translate_range=(8,) * 3,
            mode="bilinear", padding_mode="zeros",
        ),
        transforms.RandFlipd(["image"], prob=0.5, spatial_axis=0),
    ])  # fmt: skip
    loader = DataLoader(
        PersistentDataset(items, chain, cache_dir=folder / "persistent"),
        batch_size=settings.training.batch_size, shuffle=True, num_workers=4, pin_memory=True,
    )  # fmt: skip
    run = create_run(folder, "monai", settings, Split(random_data(settings).cohort, random_data(settings).cohort))
    network = compute.place(run.build_network()).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler("cuda")

    def epoch() -> None:
        for batch in loader:
            scans = batch["image"].as_tensor().cuda(non_blocking=True).to(memory_format=compute.layout)
            with torch.autocast("cuda", torch.float16):
                loss = torch.nn.functional.cross_entropy(network(scans).logits, batch["label"].cuda())
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    return seconds(epoch, 2) / len(items)  # the first call fills the cache


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Training steps on a GPU.",
        ("--peer", {"action": "store_true"}),
        ("--amp", {"nargs": "+", "default": ["fp16", "bf16"]}),
    )
    compute = choose_compute(load_settings(None).training.model_copy(update={"device": "cuda"}))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for amp in given.amp:
            for graph in ("true", "false"):
                chosen = choose_compute(
                    load_settings(None, None, ("training.device=cuda", f"training.amp={amp}")).training
                )
                overrides = ("training.device=cuda", f"training.amp={amp}", f"training.cuda_graph={graph}")
                title = f"{amp}, {'CUDA graph' if graph == 'true' else 'plain'}"
                rows.append(measure(folder, title, chosen, overrides))
        if given.peer:
            each = monai_loop(load_settings(None), compute, folder)
            rows.append(("MONAI PersistentDataset", "", 1000 * each, "", 1 / each))
    columns = ("batch 4 x 2, 1.5 mm", "step ms", "epoch ms", "step / epoch", "volumes/s")
    report(f"Training on {compute.name}, ms a volume", columns, rows, given.out)


if __name__ == "__main__":
    main()
