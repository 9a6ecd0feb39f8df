"""A model as a MONAI bundle: for those who already run `python -m monai.bundle`."""

from __future__ import annotations

import json
from importlib.metadata import distributions
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import torch
from safetensors.torch import load

from deploy.model.folder import CARD, WEIGHTS, Model, library_versions
from deploy.model.manifest import Manifest
from toolkit.errors import ModelError
from toolkit.files import building, check_output, put

METADATA = "configs/metadata.json"
CONFIG = "configs/inference.json"
STATE = "models/model.pt"
# What `verify_metadata` fetches; a file at its --filepath is taken instead.
SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
_PARTS = "deploy.bundle_parts"


def write_bundle(model: Model, out: Path) -> None:
    """Write a bundle, whole or not at all; an earlier one at `out` is replaced.

    Args:
        model: opened; its weights' hash is checked.
        out: the bundle's folder.

    Raises:
        ModelError: the model was altered, or `out` holds something else or cannot be written.
    """
    check_output(out, METADATA, "bundle", {METADATA, CONFIG, STATE, "docs/README.md", "LICENSE"})
    weights = {f"network.{name}": tensor for name, tensor in load(model.read(WEIGHTS)).items()}
    with building(out, "bundle") as folder:
        for name in ("configs", "models", "docs"):
            (folder / name).mkdir()
        _write_json(folder / METADATA, _metadata(model))
        _write_json(folder / CONFIG, _inference(model.manifest))
        torch.save(weights, folder / STATE)  # tensors alone: torch.load(..., weights_only=True) reads it
        (folder / "docs/README.md").write_text(_readme(model), encoding="utf-8")
        (folder / "LICENSE").write_text(_license(), encoding="utf-8")
        put(folder, out)


def _inference(manifest: Manifest) -> dict[str, Any]:
    """The bundle's `inference.json`; its ids are those that MONAI's tools look for."""
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/patients'",
        "output_dir": "$@bundle_root + '/eval'",
        "workers": 4,
        "batch_size": 1,
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": f"{_PARTS}.LogitsNet", "record": manifest.network.model_dump()},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": f"{_PARTS}.ReadScand", "keys": "image", **manifest.grid.model_dump()},
        "dataset": {
            "_target_": "Dataset",
            "data": {"_target_": f"{_PARTS}.list_patients", "dataset_dir": "@dataset_dir"},
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": "@batch_size",
            "shuffle": False,
            "num_workers": "@workers",
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": f"{_PARTS}.Graded", "calibration": manifest.calibration.model_dump(mode="json")},
                {"_target_": f"{_PARTS}.WriteGraded", "output_dir": "@output_dir"},
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": f"$@bundle_root + '/{STATE}'",
                "load_dict": {"model": "@network"},
                "strict": True,
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": False,
        },
        # Without TF32, a GPU answers as a CPU does.
        "initialize": ["$setattr(torch.backends.cudnn, 'allow_tf32', False)"],
        "run": ["$@evaluator.run()"],
    }


def _metadata(model: Model) -> dict[str, Any]:
    manifest, versions = model.manifest, library_versions(("glioma-grade", "monai", "torch", "numpy", "nibabel"))
    auc = manifest.training.auc[0]
    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported {manifest.created}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"].partition("+")[0],
        "numpy_version": versions["numpy"],
        "required_packages_version": {"glioma-grade": versions["glioma-grade"], "nibabel": versions["nibabel"]},
        "task": "Tell low-grade from high-grade glioma in four-modality brain MRI",
        "description": f"3-D {manifest.network.title}. {manifest.training.labels or 'Labels unknown.'}",
        "authors": "those who trained the model; see docs/README.md",
        "copyright": "code: see LICENSE; weights: those who trained the model",
        "data_type": "nifti",
        "image_classes": f"{', '.join(manifest.modalities)}; co-registered, skull-stripped",
        "pred_classes": f"P({manifest.classes[1]}), calibrated; {manifest.classes[1]} from the threshold on",
        "eval_metrics": {} if auc is None else {"auc_validation": auc},
        "intended_use": "Research use only; not a medical device.",
        "grade_model": model.fingerprint,
        "network_data_format": _data_format(manifest),
    }


def _data_format(manifest: Manifest) -> dict[str, Any]:
    shared = {"dtype": "float32", "value_range": [], "is_patch_data": False}
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": len(manifest.modalities),
        "spatial_shape": list(manifest.grid.shape),
        "channel_def": {str(index): name for index, name in enumerate(manifest.modalities)},
    }
    logits = {
        "type": "tuples",
        "format": "logits",
        "num_channels": len(manifest.classes),
        "spatial_shape": [],
        "channel_def": {str(index): name for index, name in enumerate(manifest.classes)},
    }
    probability = {
        "type": "probabilities",
        "format": "classes",
        "num_channels": 1,
        "spatial_shape": [],
        "channel_def": {"0": f"P({manifest.classes[1]})"},
    }
    return {
        "inputs": {"image": image | shared},
        "outputs": {"pred": logits | shared},
        "post_processed_outputs": {"pred": probability | shared | {"dtype": "float64", "value_range": [0, 1]}},
    }


def _readme(model: Model) -> str:
    text = (files("deploy.formats") / "bundle.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - Markdown
    card = model.read(CARD).decode()
    return environment.from_string(text).render(manifest=model.manifest, card=card, fingerprint=model.fingerprint)


def _license() -> str:
    # In a checkout, whose metadata has no licence in it, pip's own is found too.
    for installed in distributions(name="glioma-grade"):
        if text := installed.read_text("licenses/LICENSE"):
            return text
    raise ModelError("the licence of grade is not where pip puts it; install grade again.")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
