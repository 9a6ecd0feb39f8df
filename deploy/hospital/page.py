"""The page of a patient that was brought in: mask and alignment, for a human to judge in ten seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.hospital.space.prepare import PREPARED_HERE, REFERENCE, Prepared

ORDER = ("t1ce", "t1", "t2", "flair")
TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1 with contrast", "t2": "T2"}
TILE = 24  # mm, of the checkerboard
GREYS = (1.0, 99.5)  # percentiles of the brain that become black and white


def draw_page(file: Path, prepared: Prepared) -> None:
    """Write the page as a PNG.

    Top: each series with its skull and the mask's outline, from above and from the side. Bottom: squares of T1ce and
    of each other series in turn; edges that do not continue across squares are an alignment that failed.

    Args:
        file: to write.
        prepared: the patient.
    """
    from matplotlib.figure import Figure  # here: a study that is kept from an earlier call needs no page

    mask = prepared.mask
    level = int(np.argmax(mask.sum(axis=(0, 1))))
    side = int(np.mean(np.nonzero(mask.any(axis=(1, 2)))[0])) + 12  # next to the midline, where the ventricles are
    figure = Figure(figsize=(12, 9.6), facecolor="black", layout="constrained")
    axes = figure.subplots(3, 4)
    shown = {name: _grey(prepared.heads[name], mask) for name in ORDER}
    for column, name in enumerate(ORDER):
        _show(axes[0, column], shown[name][:, :, level].T, mask[:, :, level].T)
        _show(axes[1, column], shown[name][side, :, ::-1].T, mask[side, :, ::-1].T)
        axes[0, column].set_title(TITLES[name], color="white", fontsize=11)
        if name == REFERENCE:
            coronal = int(np.argmax(mask.sum(axis=(0, 2))))
            _show(axes[2, column], shown[name][:, coronal, ::-1].T, mask[:, coronal, ::-1].T)
            axes[2, column].set_xlabel("from the front", color="white", fontsize=9)
            continue
        mixed = np.where(_board(mask.shape[:2]), shown[REFERENCE][:, :, level], shown[name][:, :, level])
        _show(axes[2, column], mixed.T, None)
        axes[2, column].set_xlabel(f"squares of {TITLES[REFERENCE]} and {TITLES[name]}", color="white", fontsize=9)
    title = "Is the outline the brain? Do edges continue across the squares?  Left of the picture: right of the patient"
    notes = "\n".join(note for note in prepared.notes if note != PREPARED_HERE)
    figure.suptitle(f"{title}\n{notes}".strip(), color="white", fontsize=10)
    figure.savefig(file, dpi=80, format="png", metadata={"Software": None})


def _grey(head: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    low, high = np.percentile(head[mask], GREYS)
    return np.asarray(np.clip((head - low) / max(high - low, 1e-6), 0, 1), np.float32)


def _board(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    x, y = np.indices(shape) // TILE
    return np.asarray((x + y) % 2 == 0, np.bool_)


def _show(axis: Any, picture: NDArray[np.float32], outline: NDArray[np.bool_] | None) -> None:
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    if outline is not None and outline.any():
        axis.contour(outline, levels=[0.5], colors="#ff5040", linewidths=0.9)
    axis.set_xticks([])
    axis.set_yticks([])
