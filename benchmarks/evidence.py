"""Does the evidence lie in the tumour? `python benchmarks/evidence.py MODEL PHANTOMS`.

Of HGG phantoms that the model grades right: in how many the strongest voxel of the evidence for HGG, inside the brain,
lies in the true mask; and which share of the strongest 1 % of the brain does, against the mask's share of the brain.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from deploy.evidence import on_grid
from deploy.model import open_model
from deploy.runtimes import Choice, open_runtime
from toolkit.data.labels import read_cohort
from toolkit.data.patients import match_modalities
from toolkit.data.scan import read_scan


def mask_on_grid(seg: Path, shape, affine):
    """The mask at the centres of the scan's voxels."""
    image = nib.load(seg)
    index = np.indices(shape).reshape(3, -1)
    to_voxel = np.linalg.inv(image.affine) @ affine
    place = np.rint(to_voxel[:3, :3] @ index + to_voxel[:3, 3:]).astype(int)
    inside = np.all((place >= 0) & (place < np.array(image.shape)[:, None]), axis=0)
    found = np.zeros(index.shape[1], bool)
    found[inside] = np.asarray(image.dataobj)[tuple(place[:, inside])] > 0
    return found.reshape(shape)


def main() -> None:
    model, cohort = open_model(Path(sys.argv[1])), read_cohort(Path(sys.argv[2]), None)
    manifest, runtime = model.manifest, open_runtime(model, Choice("onnx", "cpu"))
    peaks, tops, chance = [], [], []
    for patient, grade in zip(cohort.patients, cohort.grades, strict=True):
        scan = read_scan(patient, manifest.grid)
        outputs = runtime.infer(scan.data[None])
        logit = float(outputs.logits[0, 1] - outputs.logits[0, 0])
        if grade == 0 or manifest.calibration.probability(logit) < manifest.calibration.threshold:
            continue
        evidence = on_grid(outputs.evidence[0], manifest.grid.shape, manifest.network.stem_stride)
        brain = (scan.data != 0).any(axis=0)
        mask = mask_on_grid(match_modalities(patient.folder).seg, manifest.grid.shape, scan.affine)
        values = evidence[brain]
        peaks.append(mask[brain][values.argmax()])
        tops.append(mask[brain][values >= np.quantile(values, 0.99)].mean())
        chance.append(mask[brain].mean())
    print(
        f"{len(peaks)} HGG graded right; strongest voxel in the mask in {sum(peaks)}; of the strongest 1 % of the brain"
        f" {np.mean(tops):.0%} in the mask, of the whole brain {np.mean(chance):.0%};"
        f" map {outputs.evidence.shape[1:]} on {manifest.grid.shape}"
    )


if __name__ == "__main__":
    main()
