"""Grade patients by a Triton server that serves a repository of `grade export --triton`.

    python examples/triton_client.py patients/ --model model/ --url localhost:8001

Images are read, checked and preprocessed here by `toolkit.data.scan`, as in training; the server computes; calibration,
threshold and verdict come from the model folder's manifest. Needs `pip install 'glioma-grade[triton]'`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tritonclient.grpc import InferenceServerClient

from deploy.formats.triton import NAMES
from deploy.formats.triton_client import grade_patients, open_triton
from deploy.model.folder import open_model
from toolkit.data.patients import find_patients
from toolkit.errors import GradeError


def main() -> None:
    """Print a row as each patient is done."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("patients", nargs="+", type=Path, help="patient folders, or folders of patients")
    options.add_argument("--model", type=Path, default=Path("model"), help="the model folder that was exported")
    options.add_argument("--url", default="localhost:8001", help="gRPC address of the server")
    options.add_argument("--served", default=NAMES["fp32"], help="name of the model in the repository")
    options.add_argument("--workers", type=int, default=4, help="patients read, and asked for, at once")
    asked = options.parse_args()
    try:
        with InferenceServerClient(asked.url) as client:
            runtime = open_triton(open_model(asked.model), client, asked.served)
            for record in grade_patients(find_patients(asked.patients), runtime, asked.workers):
                probability = "" if record.probability is None else f"{record.probability:.6f}"
                print(record.patient, record.grade or "refused", probability, record.verdict or record.reason, sep="\t")
    except GradeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
