"""The picture in README: the page of one held-out patient of the demo, as Chromium draws it.

python -m tests.picture DEMO docs/demo.png
"""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from deploy.model.folder import open_model
from deploy.predict.pipeline import PredictOptions, predict
from deploy.report.pages import Pages
from deploy.results.names import page_of
from deploy.results.record import Record
from deploy.results.table import read_records
from deploy.runtime import Choice
from tests.chrome import ABSENT, PROGRAM, Chrome
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient

WIDTH, HEIGHT = 1100, 1480  # CSS pixels: the answer and the viewer


def chosen(demo: Path) -> Record:
    """The held-out patient with a single grade of HGG whose probability is in the middle of such."""
    single = [r for r in read_records(demo / "results") if r.verdict == "single grade" and r.grade == "HGG"]
    if not single:
        sys.exit(f"{demo} has no held-out patient with HGG as a single grade; run `grade demo` with another seed.")
    return sorted(single, key=lambda record: record.probability or 0)[len(single) // 2]


def main() -> None:
    """Make the page of one patient and take its picture."""
    if PROGRAM is None:
        sys.exit(ABSENT)
    demo, out = map(Path, sys.argv[1:])
    model, record = open_model(demo / "model"), chosen(demo)
    patient = Patient(record.patient, Path(record.folder))
    with tempfile.TemporaryDirectory() as folder, Chrome(WIDTH) as browser:
        place = Path(folder)
        pages = Pages(place, model)
        options = PredictOptions(place, Choice("onnx", "cpu"), PredictSettings(), on_seen=pages.add)
        predict([patient], model, options)
        browser.open(page_of(place, patient.id), "document.getElementById('viewer')?.dataset.ready === 'yes'")
        shot = browser.shot({"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1})
    Image.open(BytesIO(shot)).convert("RGB").save(out, optimize=True)
    sys.stdout.write(f"{out}: {patient.id}\n")


if __name__ == "__main__":
    main()
