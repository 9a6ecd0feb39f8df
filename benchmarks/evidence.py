"""Is the evidence in the tumour? `python -m benchmarks.evidence MODEL PHANTOMS`.

Of HGG phantoms that the model grades right: in how many the strongest voxel of the evidence for HGG, inside the brain,
is in the true mask; and which share of the strongest 1 % of the brain does, against the mask's share of the brain.
The map by occlusion next to the network's class activation map.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.common import arguments, report
from deploy.model.folder import open_model
from deploy.report.evidence import between, occlusion
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
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
    """Print one line for each kind of map."""
    given = arguments(
        "Is the evidence in the tumour?",
        ("model", {"type": Path, "help": "model folder"}),
        ("phantoms", {"type": Path, "help": "cohort of `grade phantom`, with tumour masks"}),
    )
    model, cohort = open_model(given.model), read_cohort(given.phantoms, None)
    manifest, runtime = model.manifest, open_runtime(model, Choice("onnx", "cpu"))
    found, chance = {"occlusion": [], "class activation": []}, []
    for patient, grade in zip(cohort.patients, cohort.grades, strict=True):
        scan = read_scan(patient, manifest.grid)
        outputs = runtime.infer(scan.data[None])
        logit = float(outputs.logits[0, 1] - outputs.logits[0, 0])
        if grade == 0 or manifest.calibration.probability(logit) < manifest.calibration.threshold:
            continue
        brain = (scan.data != 0).any(axis=0)
        mask = mask_on_grid(match_modalities(patient.folder).seg, manifest.grid.shape, scan.affine)[brain]
        coarse = outputs.evidence[0]
        # Every convolution and pooling pads by half its kernel, so coarse voxel i is at scan voxel i x stride.
        places = [16.0 * manifest.network.stem_stride * np.arange(size) for size in coarse.shape]
        maps = {
            "occlusion": occlusion(runtime, scan.data, manifest.grid.spacing, 1),
            "class activation": between(coarse, places, manifest.grid.shape),
        }
        for name, values in maps.items():
            inside = values[brain]
            found[name].append((mask[inside.argmax()], mask[inside >= np.quantile(inside, 0.99)].mean()))
        chance.append(mask.mean())
    rows = []
    for name, hits in found.items():
        peaks, tops = zip(*hits, strict=True)
        rows.append((name, len(peaks), int(sum(peaks)), float(np.mean(tops)), float(np.mean(chance))))
    columns = (
        "map",
        "HGG graded right",
        "strongest voxel in the mask",
        "strongest 1 % in the mask",
        "mask's share of brain",
    )
    report("Is the evidence in the tumour?", columns, rows, given.out)


if __name__ == "__main__":
    main()
