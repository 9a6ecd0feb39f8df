"""What a page costs: seconds in addition to the inferences of its evidence, bytes, what a filter of the index takes.

    python -m benchmarks.pages MODEL PATIENTS

Each patient's page is written in both forms, with the viewer next to it and with the viewer in it. Where Chromium is
there, an index of 5,000 patients is opened, and letters are typed into its search.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

from benchmarks.common import arguments, report
from deploy.model.folder import Model, open_model
from deploy.predict.pipeline import PredictOptions, predict
from deploy.report import pages as module
from deploy.report.evidence import occlude, without
from deploy.report.index import write_index
from deploy.report.pages import Pages
from deploy.results.names import page_of
from deploy.results.record import Record
from deploy.runtime import Choice
from tests.chrome import PROGRAM, Chrome
from toolkit.config import PredictSettings
from toolkit.data.patients import find_patients

ROWS = 5000
TYPED = ("0", "01", "012", "0123", "both", "")
FILTER = """(async () => {
  const words = document.getElementById("words"), took = [];
  for (const text of %s) {
    words.value = text;
    const start = performance.now();
    words.dispatchEvent(new Event("input"));
    document.body.offsetHeight;
    took.push(performance.now() - start);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return took;
})()"""


def timed(total: list[float], function: object, *given: object) -> object:
    """Add what a call takes."""
    start = perf_counter()
    found = function(*given)  # type: ignore[operator]
    total.append(perf_counter() - start)
    return found


def measured(model: Model, patients: Path, folder: Path, single: bool) -> tuple[list[Record], dict[str, float]]:
    """Page by page."""
    made, records = Pages(folder, model, single), list[Record]()
    inferences, whole = list[float](), list[float]()
    with (
        patch.object(module, "occlude", partial(timed, inferences, occlude)),
        patch("deploy.report.region.without", partial(timed, inferences, without)),
    ):
        options = PredictOptions(
            folder, Choice("onnx", "cpu"), PredictSettings(), on_seen=partial(timed, whole, made.add)
        )
        predict(find_patients([patients]), model, options, lambda _: None, records.append)
    sizes = [page_of(folder, record.patient).stat().st_size for record in records if record.grade]
    return records, {
        "pages": len(whole),
        "seconds of inferences, mean": sum(inferences) / len(whole),
        "seconds of the rest, mean": (sum(whole) - sum(inferences)) / len(whole),
        "largest page, MB": max(sizes) / 1e6,
    }


def filtered(model: Model, record: Record, folder: Path) -> dict[str, float]:
    """Milliseconds from a letter to the new rows, laid out."""
    many = [record.model_copy(update={"patient": f"BraTS-GLI-{number:05d}-000"}) for number in range(ROWS)]
    write_index(folder, many, model)
    with Chrome() as browser:
        browser.open(folder / "report.html")
        took = browser.ask(FILTER % list(TYPED))
    return {"rows": ROWS, "median ms": median(took), "largest ms": max(took)}


def main() -> None:
    """Measure and report."""
    given = arguments(
        "What a page costs.",
        ("model", {"type": Path, "help": "exported model"}),
        ("patients", {"type": Path, "help": "folder of patients"}),
    )
    model, found = open_model(given.model), dict[str, dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder:
        for name, single in (("viewer next to it", False), ("single file", True)):
            place = Path(folder) / name
            place.mkdir()
            records, found[name] = measured(model, given.patients, place, single)
        if PROGRAM:
            found["filter of the index"] = filtered(model, records[0], Path(folder))
    rows = [(name, what, value) for name, values in found.items() for what, value in values.items()]
    report("What a page costs", ("", "", "value"), rows, given.out)


if __name__ == "__main__":
    main()
