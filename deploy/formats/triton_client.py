"""Patients graded by a Triton server: read and preprocessed here, answered there, decided here by the manifest."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from deploy.formats.triton import FINGERPRINT, NAMES
from deploy.model.folder import ONNX, Model, Precision
from deploy.predict.grader import Grader, Timings
from deploy.predict.reader import read_patient
from deploy.results.record import Record
from deploy.runtime import Array, RuntimeOutputs, check_scans, checked
from deploy.runtimes.onnx import INPUT
from deploy.selftest import run_selftest
from toolkit.data.ahead import Ahead
from toolkit.data.memory import Workspace
from toolkit.data.patients import Patient
from toolkit.errors import ModelError, RuntimeUnavailable


@dataclass
class TritonRuntime:
    """A model on a server, as `deploy.runtime.Runtime`; `open_triton` makes one."""

    model: Model
    client: InferenceServerClient
    served: str
    device: str
    precision: Precision
    chosen: str
    name: str = "triton"

    @property
    def engine_hash(self) -> str:
        """SHA-256 of the graph that the served model is, or was built from."""
        return self.model.manifest.files[ONNX[self.precision]]

    def infer(self, scans: Array) -> RuntimeOutputs:
        """See `deploy.runtime.Runtime.infer`; several threads may ask at once, which is what the server batches.

        Raises:
            RuntimeUnavailable: the server does not answer.
        """
        check_scans(scans, self.model.manifest)
        wanted = InferInput(INPUT, list(scans.shape), "FP32")
        wanted.set_data_from_numpy(scans)
        outputs = [InferRequestedOutput(name) for name in RuntimeOutputs._fields]
        try:
            result = self.client.infer(self.served, [wanted], outputs=outputs)
        except InferenceServerException as error:
            raise RuntimeUnavailable(f"the Triton model {self.served} failed: {error.message()}.") from error
        arrays = {name: result.as_numpy(name) for name in RuntimeOutputs._fields}
        missing = [name for name, array in arrays.items() if array is None]
        if missing:
            raise ModelError(
                f"the Triton model {self.served} gave no {', '.join(missing)}; export its repository again."
            )
        return checked(RuntimeOutputs(**arrays), len(scans), self.model.manifest)


def open_triton(model: Model, client: InferenceServerClient, served: str) -> TritonRuntime:
    """A model on a server, if it is the one that is meant and answers its self-test.

    Args:
        model: opened here; its manifest decides.
        client: connected to the server.
        served: name in the repository, such as `grade_onnx`.

    Raises:
        RuntimeUnavailable: the server does not answer, or does not have it.
        ModelError: the server has another model, or it fails the self-test.
    """
    try:
        config = client.get_model_config(served).config
    except InferenceServerException as error:
        raise RuntimeUnavailable(f"the server has no model {served}: {error.message()}.") from error
    found = config.parameters[FINGERPRINT].string_value if FINGERPRINT in config.parameters else "unknown"
    if found != model.fingerprint:
        raise ModelError(
            f"the server's {served} is model {found[:12]}, {model.folder} is {model.short}; take one for both."
        )
    precision: Precision = "fp32" if served == NAMES["fp32"] else "fp16"
    runtime = TritonRuntime(model, client, served, "server", precision, f"{served} on a Triton server.")
    run_selftest(model, runtime)
    return runtime


def grade_patients(patients: Sequence[Patient], runtime: TritonRuntime, workers: int) -> Iterator[Record]:
    """Grade patients, in their order; one that cannot be read is refused, the others are graded.

    Args:
        patients: whom to grade.
        runtime: see `open_triton`.
        workers: threads; each reads a patient and asks the server, which makes batches of what comes together.
    """
    local = threading.local()  # a grader holds a scan: each thread has its own

    def grade(patient: Patient) -> Record:
        if not hasattr(local, "grader"):
            local.grader, local.workspace = Grader(runtime.model, runtime, 1, Timings()), Workspace()
        model = runtime.model
        local.grader.add(read_patient(patient, model.manifest.grid, None, local.workspace, model.optional))
        (graded,) = local.grader.run()
        return graded.record  # type: ignore[no-any-return]

    with Ahead(grade, patients, workers) as records:
        while (record := records.take()) is not None:
            yield record
