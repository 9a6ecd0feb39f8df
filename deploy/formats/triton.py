"""A model as models of a Triton repository: for those who already run that server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from deploy.model.folder import ENGINES, ONNX, Model, Precision
from deploy.runtime import RuntimeOutputs
from deploy.runtimes.onnx import INPUT
from deploy.selftest import load_selftest
from deploy.tensorrt.engine_files import EngineRecord, read_plan, records
from toolkit.errors import ModelError
from toolkit.files import building, check_output, put

CONFIG = "config.pbtxt"
FINGERPRINT = "grade_model"  # parameter of each config: a client sees whether the server runs its model
NAMES: dict[Precision, str] = {"fp32": "grade_onnx", "fp16": "grade_onnx_fp16"}
TENSORRT = "grade_tensorrt"
VERSION = "1"
QUEUE_DELAY = 5000  # microseconds that a scan may wait for others; a batch of 8 takes 7 ms on an H100
_WARMUP = "selftest"
_GPU = pb.ModelInstanceGroup.KIND_GPU


class Written(NamedTuple):
    """Names of the models in the repository, and a sentence for each engine that was left out."""

    names: tuple[str, ...]
    notes: tuple[str, ...]


def write_repository(model: Model, repository: Path) -> Written:
    """Write a model into a repository: ONNX in fp32 and fp16, and its TensorRT engines. Other models there stay.

    Each model of the repository is replaced whole or not at all. Its config is parsed back by Triton's protobuf.

    Args:
        model: opened; every file that is copied has its hash checked.
        repository: a folder, made where it is missing.

    Raises:
        ModelError: the model was altered, a folder there is something else, or the disk refuses.
    """
    engines, notes = _engines(model)
    for precision, name in NAMES.items():
        config = _config(model, name, "onnxruntime", (model.manifest.max_batch,))
        # fp32 runs where there is no GPU, too.
        config.instance_group[0].kind = pb.ModelInstanceGroup.KIND_AUTO if precision == "fp32" else _GPU
        _write(model, repository / name, config, {"model.onnx": model.onnx(precision)})
    if engines:
        best = {record.batches[1] for record, _ in engines.values()} | {model.manifest.max_batch}
        config = _config(model, TENSORRT, "tensorrt", sorted(best))
        plans = {f"{record.name}.plan": plan for record, plan in engines.values()}
        for capability, (record, _) in engines.items():
            config.cc_model_filenames[capability] = f"{record.name}.plan"
            config.parameters["tensorrt"].string_value = record.version
        config.default_model_filename = next(iter(plans))
        _write(model, repository / TENSORRT, config, plans)
    return Written((*NAMES.values(), *([TENSORRT] if engines else [])), tuple(notes))


def _config(model: Model, name: str, backend: str, best: Sequence[int]) -> pb.ModelConfig:
    """A config with all that the variants share; dimensions are those of one scan."""
    manifest = model.manifest
    scan = (len(manifest.modalities), *manifest.grid.shape)
    shapes = RuntimeOutputs._fields, ((len(manifest.classes),), (manifest.outputs.features,), manifest.outputs.evidence)
    return pb.ModelConfig(
        name=name,
        backend=backend,
        max_batch_size=manifest.max_batch,
        input=[pb.ModelInput(name=INPUT, data_type=pb.TYPE_FP32, dims=scan)],
        output=[
            pb.ModelOutput(name=output, data_type=pb.TYPE_FP32, dims=dims) for output, dims in zip(*shapes, strict=True)
        ],
        version_policy=pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1)),
        instance_group=[pb.ModelInstanceGroup(kind=_GPU, count=1)],
        dynamic_batching=pb.ModelDynamicBatching(preferred_batch_size=best, max_queue_delay_microseconds=QUEUE_DELAY),
        # Kernels are searched and memory is taken before the first patient: alone and in the largest batch.
        model_warmup=[
            pb.ModelWarmup(
                name=f"{_WARMUP}_{batch}",
                batch_size=batch,
                inputs={INPUT: pb.ModelWarmup.Input(data_type=pb.TYPE_FP32, dims=scan, input_data_file=_WARMUP)},
            )
            for batch in sorted({1, manifest.max_batch})
        ],
        parameters={FINGERPRINT: pb.ModelParameter(string_value=model.fingerprint)},
    )


def _write(model: Model, out: Path, config: pb.ModelConfig, files: dict[str, bytes]) -> None:
    written = {CONFIG, f"{VERSION}/*.onnx", f"{VERSION}/*.plan", f"warmup/{_WARMUP}"}
    check_output(out, CONFIG, "model of a Triton repository", written)
    with building(out, "Triton model") as folder:
        for name in (VERSION, "warmup"):
            (folder / name).mkdir()
        for name, content in files.items():
            (folder / VERSION / name).write_bytes(content)
        scan, _ = load_selftest(model)
        (folder / "warmup" / _WARMUP).write_bytes(scan.tobytes())  # one scan; Triton repeats it for a batch
        (folder / CONFIG).write_text(text_format.MessageToString(config), encoding="utf-8")
        if read_config(folder / CONFIG) != config:
            raise ModelError(f"{out / CONFIG} does not say what was meant; check the version of tritonclient.")
        put(folder, out)


def read_config(path: Path) -> pb.ModelConfig:
    """A `config.pbtxt` by Triton's protobuf.

    Raises:
        ModelError: it is none.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ModelError(f"{path} is no config of Triton: {error}; export again.") from error


def _engines(model: Model) -> tuple[dict[str, tuple[EngineRecord, bytes]], list[str]]:
    """Compute capability -> the engine that Triton can run there, and why each other is left out."""
    found: dict[str, tuple[EngineRecord, bytes]] = {}
    versions: list[str] = []
    notes = []
    for path, record in records(model.folder / ENGINES):
        plan = None if isinstance(record, ModelError) else read_plan(path.with_suffix(".plan"), record)
        if isinstance(record, ModelError):
            reason = str(record).rstrip(".")
        elif record.flavour != "tensorrt":
            reason = "is of TensorRT for RTX, which Triton does not run"
        elif record.onnx != model.manifest.files.get(ONNX["fp16"]):
            reason = "was built from other weights"
        elif plan is None:
            reason = "is missing its plan, or that is cut off or altered"
        elif record.compute_capabilities[0] in found:
            reason = f"is the second for compute capability {record.compute_capabilities[0]}"
        elif versions and record.version not in versions:
            reason = f"is of TensorRT {record.version}, and a server has one version, here {versions[0]}"
        else:
            found[record.compute_capabilities[0]] = record, plan
            versions.append(record.version)
            continue
        notes.append(f"engine {path.stem} is left out: it {reason}.")
    return found, notes
