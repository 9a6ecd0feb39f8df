"""Which TensorRT is taken, what it can build for, and whether every name that the code uses is in the real library."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import tensorrt_rtx_bindings as rtx

from deploy.tensorrt import flavours
from deploy.tensorrt.builder import inspected_convolutions
from deploy.tensorrt.flavours import RTX_CAPABILITIES, Card, Target, choose_target
from tests.deploy.fakes import FakeCuda, fake_tensorrt
from toolkit.errors import RuntimeUnavailable

H100, RTX4090 = Card("NVIDIA H100 80GB HBM3", "9.0"), Card("NVIDIA GeForce RTX 4090", "8.9")
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("asked", "capabilities", "card", "sentence"),
    [
        ("tensorrt", (), H100, r"TensorRT is not installed; pip install .*'\.\[rtx\]' .*'\.\[tensorrt\]'\.$"),
        ("tensorrt", ("8.9",), None, "TensorRT builds for the card in this machine; name none"),
        ("rtx", (), H100, "compute capability 9.0 is that of NVIDIA H100 80GB HBM3, but TensorRT for RTX .* 8.9, 12.0"),
        ("rtx", ("9.0",), None, "compute capability 9.0 was named"),
        (None, ("8.9", "ampere"), None, "compute capability ampere was named"),
        ("lean", (), None, "flavour 'lean' is unknown; choose tensorrt or rtx"),
    ],
)
def test_what_cannot_be_built_is_explained(
    asked: str | None, capabilities: tuple[str, ...], card: Card | None, sentence: str
) -> None:
    with pytest.raises(RuntimeUnavailable, match=sentence):
        choose_target(asked, capabilities, card)


def test_neither_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavours, "find_spec", lambda _: None)
    with pytest.raises(RuntimeUnavailable, match=r"TensorRT for RTX is not installed; pip install"):
        choose_target(None, (), None)


def test_the_flavour_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_target(None, (), None).compute_capabilities == ("8.6", "8.9", "12.0")
    assert choose_target(None, (), RTX4090).compute_capabilities == ("8.9",)
    fake = fake_tensorrt(FakeCuda())
    monkeypatch.setattr(flavours, "_installed", lambda name: name != "tensorrt_rtx")
    real = flavours.import_module
    monkeypatch.setattr(flavours, "import_module", lambda name: fake if name == "tensorrt" else real(name))
    assert choose_target(None, (), H100) == Target("tensorrt", "11.4.0.106", H100.name, ("9.0",), fake)
    assert choose_target(None, (), None).flavour == "rtx"  # no GPU to build on
    assert choose_target(None, ("8.9",), H100).flavour == "rtx"  # a card was named
    with pytest.raises(RuntimeUnavailable, match="TensorRT builds on the GPU that the engine will run on"):
        choose_target("tensorrt", (), None)


@pytest.mark.parametrize(
    ("layers", "counted"),
    [
        # As NVIDIA documents the inspector of TensorRT 10 and, in its migration notes, of 11.
        ([{"LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]}], (0, 1)),
        (
            [
                {"LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Channel major FP16 format"}]},
                {"LayerType": "Reformat", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]},
            ],
            (1, 1),
        ),
        (
            [
                {"LayerType": "kgen", "ParameterType": "Convolution", "Outputs": [{"DataType": "Half"}]},
                {"LayerType": "CaskConvolution", "Outputs": [{"DataType": "Float", "Format": "NHWC"}]},
            ],
            (1, 2),
        ),
        ([{"LayerType": "kgen", "Outputs": [{"DataType": "Half"}]}], None),
        (["a layer's name only"], None),
        ([], None),
    ],
)
def test_the_inspectors_words(layers: list[object], counted: tuple[int, int] | None) -> None:
    assert inspected_convolutions(json.dumps({"Layers": layers})) == counted


def _chains(tree: ast.AST) -> set[tuple[str, ...]]:
    """`api.A.B` and `target.api.A.B` -> ("A", "B")."""
    found = set()
    for start in ast.walk(tree):
        node, names = start, list[str]()
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if names and isinstance(node, ast.Name):
            path = [node.id, *names]
            if "api" in path[:3]:
                found.add(tuple(path[path.index("api") + 1 :]))
    return found


def test_every_name_that_is_used_is_there() -> None:
    """Names of the module in the code, and methods that the code calls on its objects, in the real library."""
    sources = [
        ROOT / "deploy" / name for name in ("tensorrt/builder.py", "tensorrt/flavours.py", "runtimes/tensorrt.py")
    ]
    used = set().union(*(_chains(ast.parse(source.read_text())) for source in sources))
    assert ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in used
    for names in used:
        found: object = rtx
        for name in names:
            found = getattr(found, name)
    methods = {
        "Builder": "create_network create_builder_config create_optimization_profile build_serialized_network",
        "OnnxParser": "parse num_errors get_error",
        "INetworkDefinition": "get_input get_layer num_layers",
        "IBuilderConfig": "add_optimization_profile set_memory_pool_limit clear_flag progress_monitor"
        " profiling_verbosity builder_optimization_level num_compute_capabilities set_compute_capability"
        " create_timing_cache set_timing_cache",
        "IOptimizationProfile": "set_shape",
        "ITimingCache": "serialize",
        "Runtime": "deserialize_cuda_engine",
        "ICudaEngine": "create_execution_context create_runtime_config create_engine_inspector",
        "EngineInspector": "get_engine_information",
        "IRuntimeConfig": "create_runtime_cache set_runtime_cache dynamic_shapes_kernel_specialization_strategy",
        "IRuntimeCache": "serialize deserialize",
        "IExecutionContext": "set_tensor_address set_input_shape execute_async_v3",
    }
    for name, members in methods.items():
        assert set(members.split()) <= set(dir(getattr(rtx, name)))


def test_no_precision_flag_is_left_or_used() -> None:
    assert not hasattr(rtx.BuilderFlag, "FP16")
    assert "FP16" not in (ROOT / "deploy" / "tensorrt" / "builder.py").read_text()


def test_the_cards_of_rtx() -> None:
    names = {f"SM{capability.replace('.', '')}" for capability in RTX_CAPABILITIES}
    assert {name for name in dir(rtx.ComputeCapability) if name.startswith("SM")} == names
