"""A model watched over time."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from deploy.model.folder import Model, open_model, write_manifest
from deploy.predict.verdict import SINGLE
from deploy.results.audit import Audit
from deploy.results.journal import Journal
from deploy.results.record import Record, Seconds
from toolkit.evaluation.local import watch


@pytest.fixture(autouse=True, scope="module")
def fewer_runs():
    """Limits by fewer simulations: a little higher than with all of them."""
    before, watch.RUNS = watch.RUNS, 4000
    yield
    watch.RUNS = before
    watch.place_limit.cache_clear()
    watch.share_limit.cache_clear()


def answers(model: Model, count: int, changed_from: int, rng: np.random.Generator) -> list[Record]:
    """Answers drawn from the model's own reference; from some patient on T2 is noisier than ever."""
    baseline, manifest = model.manifest.baseline, model.manifest
    reference = [value for values in manifest.reference.values() for value in values]
    found = []
    for number in range(count):
        probability = float(rng.choice(reference))
        statistics = {name: float(rng.choice(values)) for name, values in baseline.items() if name != "distance"}
        if number >= changed_from:
            statistics["t2_noise"] = max(baseline["t2_noise"]) * (1.2 + 0.1 * rng.random())
        found.append(
            Record(
                patient=f"p{number:04d}",
                folder=f"/x/p{number:04d}",
                grade="HGG" if probability >= manifest.calibration.threshold else "LGG",
                probability=probability,
                threshold=manifest.calibration.threshold,
                verdict=SINGLE,
                grades=manifest.conformal.grades(probability),
                distance=float(rng.choice(baseline["distance"])),
                statistics=statistics,
                runtime="onnx fp32 cpu",
                inputs=f"{number:064x}",
                seconds=Seconds(read=0.1, infer=0.1),
            )
        )
    return found


def write(folder: Path, model: Model, records: list[Record]) -> Path:
    """A results folder as `grade predict` leaves it: each line of the audit, then the record."""
    folder.mkdir()
    audit = Audit(folder, {}, model.fingerprint, False)
    with Journal(folder, model.fingerprint) as journal:
        journal.begin(keep=True)
        for record in records:
            journal.add((record.patient, record.folder), record, audit.add(record))
    return folder


def refused(record: Record) -> Record:
    """The same patient, refused."""
    gone = {"grade": None, "probability": None, "verdict": None, "grades": (), "distance": None, "statistics": {}}
    return record.model_copy(update=gone | {"reason": "t2 is empty"})


def test_the_command_as_the_readme_writes_it_on_patients_like_the_reference(grade, adapted, site, tmp_path):
    for folder, out in ((site.folder, "results-1"), (site.more, "results-2")):
        assert grade("predict", folder, "--model", adapted.folder, "--out", tmp_path / out)[0] == 0
    out, text = tmp_path / "monitor", tmp_path / "grade.prom"
    words = ("--model", adapted.folder, "--outcomes", site.table, "--out", out, "--prometheus", text)
    code, said, _ = grade("monitor", tmp_path / "results-1", tmp_path / "results-2", *words)
    assert code == 0
    assert "No alarm" in said
    found = json.loads((out / "monitor.json").read_text())
    assert (found["patients"], found["alarms"]) == (40, [])
    assert sum(period["outcomes"] for period in found["periods"]) == 24
    assert {"calibration", "LGG outside its set", "t2 noise"} <= {one["name"] for one in found["watched"]}
    page = (out / "monitor.html").read_text()
    assert "PhantomB" not in page + text.read_text() + json.dumps(found)
    assert "grade_monitor_patients" in text.read_text()
    code, said, _ = grade("monitor", tmp_path / "results-1", "--model", adapted.folder, "--out", out, "--json")
    assert json.loads(said)["patients"] == 24  # the second call replaces the page


def test_a_drift_is_an_alarm_that_names_what_changed_and_when(grade, adapted, tmp_path):
    results = write(tmp_path / "results", adapted, answers(adapted, 140, 90, np.random.default_rng(0)))
    code, said, _ = grade("monitor", results, "--model", adapted.folder, "--out", tmp_path / "out", "--json")
    assert code == 3
    (alarm,) = json.loads(said)["alarms"]
    assert (alarm["name"], alarm["towards"]) == ("t2 noise", "higher")
    assert 90 < alarm["patient"] < 130
    page = (tmp_path / "out" / "monitor.html").read_text()
    assert "Alarm: t2 noise" in page
    tomorrow = ("--since", "2100-01-01", "--json")
    code, said, notes = grade("monitor", results, "--model", adapted.folder, "--out", tmp_path / "out", *tomorrow)
    assert (code, json.loads(said)["patients"]) == (0, 0)
    assert "answers are older than --since and do not count" in " ".join(f"{said} {notes}".split())


def test_refusals_and_wrong_outcomes_are_alarms(grade, adapted, tmp_path):
    records = answers(adapted, 120, 999, np.random.default_rng(1))
    records = [refused(record) if number > 60 and number % 2 else record for number, record in enumerate(records)]
    results = write(tmp_path / "results", adapted, records)
    with (tmp_path / "pathology.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["patient", "grade"])
        graded = [record for record in records if record.probability]
        table.writerows((record.patient, "LGG" if record.probability > 0.5 else "HGG") for record in graded)
        table.writerow(["somebody-else", "HGG"])
    words = ("--model", adapted.folder, "--outcomes", tmp_path / "pathology.csv", "--out", tmp_path / "out", "--json")
    code, said, _ = grade("monitor", results, *words)
    found = json.loads(said)
    assert code == 3
    assert "refused patients" in {alarm["name"] for alarm in found["alarms"]}
    assert {"calibration", "HGG outside its set", "LGG outside its set"} & {alarm["name"] for alarm in found["alarms"]}
    assert found["refusals"] == {"t2 is empty": 30}
    assert any("1 outcomes are of nobody" in note for note in found["notes"])


def test_answers_of_others_and_repeated_images_do_not_count(grade, adapted, parent, tmp_path):
    records = answers(adapted, 15, 99, np.random.default_rng(2))
    one, again = write(tmp_path / "one", adapted, records), write(tmp_path / "again", adapted, records[:5])
    other = write(tmp_path / "other", parent, records[:3])
    code, said, _ = grade("monitor", one, again, other, "--model", adapted.folder, "--out", tmp_path / "out", "--json")
    found = json.loads(said)
    assert code == 0
    assert found["patients"] == 15
    assert [note.split(" ")[0] for note in found["notes"]] == ["3", "5"]


def test_few_patients_are_shown_and_not_watched(grade, adapted, tmp_path):
    results = write(tmp_path / "results", adapted, answers(adapted, 1, 99, np.random.default_rng(3)))
    code, said, _ = grade("monitor", results, "--model", adapted.folder, "--out", tmp_path / "out")
    assert code == 0
    assert "Nothing to watch yet" in said


def test_what_cannot_be_trusted_is_an_error(grade, adapted, folder, tmp_path):
    results = write(tmp_path / "results", adapted, answers(adapted, 12, 99, np.random.default_rng(4)))
    code, _, said = grade("monitor", tmp_path / "nothing", "--model", adapted.folder, "--out", tmp_path / "out")
    assert (code, "cannot be read" in said) == (1, True)
    write_manifest(folder, open_model(folder).manifest.model_copy(update={"baseline": {}}))
    code, _, said = grade("monitor", results, "--model", folder, "--out", tmp_path / "out")
    assert (code, "keeps no statistics" in said) == (1, True)
    lines = (results / "audit.jsonl").read_text().splitlines(keepends=True)
    (results / "audit.jsonl").write_text("".join(lines[:3] + lines[4:]))
    code, _, said = grade("monitor", results, "--model", adapted.folder, "--out", tmp_path / "out")
    assert (code, "removed" in said) == (1, True)
