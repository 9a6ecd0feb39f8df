"""How many examples the property tests try: `pytest --hypothesis-profile=thorough` for many; a machine without CUDA."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", max_examples=200, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5000)
settings.load_profile("default")


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that was built without CUDA, whatever is installed."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
