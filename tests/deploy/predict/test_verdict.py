"""What is said about a patient beside the grade."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deploy.model.folder import Model, file_hashes, open_model, write_manifest
from deploy.model.manifest import Manifest
from deploy.predict.pipeline import PredictOptions, predict
from deploy.predict.verdict import Judge, Verdict
from deploy.results.record import Record
from deploy.runtime import Choice
from tests.deploy.conftest import ignore
from tests.narrow import FEATURES
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient
from toolkit.errors import ModelError
from toolkit.evaluation.conformal import Conformal
from toolkit.evaluation.familiarity import Bound, Familiarity

CONFORMAL = Conformal(rate=0.1, cases={"LGG": 15, "HGG": 42}, hgg_from=0.3, lgg_to=0.6)
FAMILIARITY = Familiarity(
    distance_rate=0.1,
    distance_confidence=0.95,
    distance_by="rank",
    image_rate=0.025,
    training=228,
    validation=57,
    distance=1e9,
    bounds=(Bound(name="volume", low=900, high=2000),),
)
NOTHING = np.zeros(FEATURES, np.float32)


def judge(folder: Path, **changes: object) -> Judge:
    """Of a model whose manifest says something else."""
    manifest = open_model(folder).manifest.model_copy(
        update={"conformal": CONFORMAL, "out_of_distribution": FAMILIARITY, **changes}
    )
    write_manifest(folder, manifest)
    return Judge(open_model(folder))


def say(judge: Judge, grade: str, p: float, volume: float = 1400) -> Verdict:
    return judge.verdict(grade, p, NOTHING, {"volume": volume})


def test_single_grade_and_uncertain(folder: Path) -> None:
    found = judge(folder)
    assert say(found, "HGG", 0.9)[:3] == ("single grade", "", ("HGG",))
    assert say(found, "LGG", 0.2)[:3] == ("single grade", "", ("LGG",))
    both = say(found, "HGG", 0.5)
    assert both[:3] == ("uncertain", "both grades are possible at 90%; do not rely on the grade", ("LGG", "HGG"))
    other = say(found, "LGG", 0.7)  # a threshold above the set's limit
    assert other.word == "uncertain"
    assert other.sentence.startswith("HGG alone is likely at 90%, but the threshold says LGG")
    apart = judge(folder, conformal=CONFORMAL.model_copy(update={"hgg_from": 0.8, "lgg_to": 0.2}))
    assert say(apart, "LGG", 0.5).sentence.startswith("neither grade is likely at 90%")


def test_unfamiliar_comes_first(folder: Path) -> None:
    found = judge(folder)
    small = say(found, "HGG", 0.5, volume=700)
    assert small.word == "unfamiliar"
    assert small.sentence == (
        "unlike the training patients: Brain volume is lower than in training (700, usual 900 to 2e+03 ml);"
        " do not rely on the grade"
    )
    assert small.outside == ("volume",)
    far = judge(folder, out_of_distribution=FAMILIARITY.model_copy(update={"distance": 1e-3}))
    assert "Distance of the network's features" in say(far, "HGG", 0.9).sentence
    broken = found.verdict("HGG", 0.9, np.full(FEATURES, np.nan, np.float32), {"volume": 1400})
    assert (broken.word, broken.distance) == ("unfamiliar", None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"conformal": CONFORMAL.model_copy(update={"lgg_to": None})}, "how sure the grade is (15 LGG)"),
        ({"out_of_distribution": FAMILIARITY.model_copy(update={"distance": None})}, "57 for validation"),
        ({"out_of_distribution": FAMILIARITY.model_copy(update={"bounds": ()})}, "57 for validation"),
    ],
)
def test_no_single_grade_without_limits(changes: dict[str, object], sentence: str, folder: Path) -> None:
    found = say(judge(folder, **changes), "HGG", 0.99)
    assert found.word == "undetermined"
    assert sentence in found.sentence
    assert found.sentence.endswith("do not rely on the grade")


@pytest.mark.parametrize("part", ["conformal", "out_of_distribution"])
def test_a_model_without_limits_is_refused(part: str, folder: Path) -> None:
    with pytest.raises(ModelError, match=rf"manifest.json cannot be used: {part}"):
        judge(folder, **{part: None})


def test_altered_statistics_are_not_used(folder: Path) -> None:
    (folder / "familiarity.npz").write_bytes((folder / "familiarity.npz").read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"familiarity\.npz was altered"):
        Judge(open_model(folder))


def spoilt(patient: Patient, folder: Path) -> Patient:
    """The same patient in units a hundred times as large."""
    shutil.copytree(patient.folder, folder / "spoilt")
    for file in (folder / "spoilt").glob("*.nii.gz"):
        image = nib.load(file)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float32) * 100, image.affine), file)
    return Patient("spoilt", folder / "spoilt")


def test_verdicts_reach_table_and_record(patients: tuple[Patient, ...], folder: Path, tmp_path: Path) -> None:
    """Limits that six patients cannot give, taken from what they hold."""
    seen: list[Record] = []
    options = PredictOptions(tmp_path, Choice("onnx", "cpu"), PredictSettings())
    predict(patients, open_model(folder), options, ignore, seen.append)
    assert {record.verdict for record in seen} == {"undetermined"}
    assert all(record.distance is not None and record.statistics for record in seen)
    bounds = tuple(
        Bound(name=name, low=min(values) - 0.1 * abs(min(values)), high=max(values) + 0.1 * abs(max(values)))
        for name in seen[0].statistics
        if (values := [record.statistics[name] for record in seen])
    )
    limits = FAMILIARITY.model_copy(update={"bounds": bounds, "distance": 1e9})
    judge(folder, out_of_distribution=limits)
    records: list[Record] = []
    predict((*patients, spoilt(patients[0], tmp_path)), open_model(folder), options, ignore, records.append)
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [record.verdict == "unfamiliar" for record in records] == [False] * 6 + [True]
    assert set(records[-1].outside) == {"flair_level", "t1_level", "t1ce_level", "t2_level"}
    assert records[-1].probability == pytest.approx(seen[0].probability, abs=1e-3)  # z-scores do not see it
    assert content["patients"][-1]["outside"] == list(records[-1].outside)
    assert Familiarity.model_validate(content["model"]["out_of_distribution"]) == limits
    assert Conformal.model_validate(content["model"]["conformal"]) == CONFORMAL
    assert (
        "FLAIR: median signal is much higher than in training"
        in (tmp_path / "predictions.csv").read_text().splitlines()[-1]
    )


def test_the_manifest_holds_what_validation_gives(model: Model) -> None:
    manifest: Manifest = model.manifest
    assert manifest.conformal is not None
    assert manifest.conformal.cases == {"LGG": 3, "HGG": 3}
    assert manifest.conformal.missing == ("LGG", "HGG")
    assert manifest.out_of_distribution is not None
    assert (manifest.out_of_distribution.training, manifest.out_of_distribution.validation) == (6, 6)
    assert not manifest.out_of_distribution.known
    assert manifest.out_of_distribution.distance_by is None
    assert manifest.files["familiarity.npz"] == file_hashes(model.folder)["familiarity.npz"]
