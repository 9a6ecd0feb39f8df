"""A model fitted to a site."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.life.adapt import Wish, adapt_model
from deploy.life.adapt_page import PAGE
from deploy.model.folder import CARD, MANIFEST, ONNX, SIGNATURE, WEIGHTS, open_model, write_manifest
from deploy.verify import verify_model
from toolkit.data.labels import read_cohort
from toolkit.errors import CohortError, ModelError


def ignore(_: object) -> None:
    """A progress callback."""


def test_no_weight_is_touched_and_the_model_passes_its_checks(parent, adapted):
    for name in (WEIGHTS, *ONNX.values()):
        assert adapted.read(name) == parent.read(name)
    checks = list(verify_model(adapted.folder, None))
    assert [check.sentence for check in checks if not check.passed] == []
    assert adapted.fingerprint != parent.fingerprint
    assert not (adapted.folder / SIGNATURE).exists()


def test_the_manifest_says_what_was_learned_from_whom(parent, adapted):
    found = adapted.manifest.adaptation
    assert found.parent == parent.fingerprint
    assert sum(found.patients.values()) == 24
    assert (found.unlabelled, found.bounds, found.distance) == (16, "local", "local")
    assert len(found.people.digests) == 24
    assert not set(found.people.digests) & set(parent.manifest.people.digests)
    assert adapted.manifest.conformal.cases == found.patients
    assert len(adapted.manifest.baseline["distance"]) == 40
    text = (adapted.folder / MANIFEST).read_text()
    assert "PhantomB" not in text


def test_the_auc_stays_and_what_was_not_known_of_the_images_is_known(parent, adapted):
    found = adapted.manifest.adaptation
    assert found.after.auc == found.before.auc
    assert found.after.auc[0] > 0.7  # the grades follow the logit
    assert not parent.manifest.out_of_distribution.known  # from 12 patients
    assert adapted.manifest.out_of_distribution.known


def test_card_and_page_tell_before_and_after(parent, adapted):
    card, page = (adapted.folder / CARD).read_text(), (adapted.folder / PAGE).read_text()
    assert card.startswith(parent.read(CARD).decode())
    assert "## Adapted to a site" in card
    for text in (card, page):
        assert "out of sample" in text
        assert parent.short in text


def test_patients_of_the_training_are_refused_even_under_other_names(parent, site, cohort, tmp_path):
    """Files repacked without compression and under another id are known again."""
    import gzip

    patient = cohort.patients[0]
    new = tmp_path / "here" / "Somebody"
    new.mkdir(parents=True)
    for file in patient.folder.glob("*.nii.gz"):
        name = file.name.replace(patient.id, "Somebody").removesuffix(".gz")
        (new / name).write_bytes(gzip.decompress(file.read_bytes()))
    local = site.cohort()
    (stranger,) = read_cohort(cohort.patients[0].folder.parents[1], None).select([0]).patients
    repacked = type(stranger)("Somebody", new)
    joined = type(local)((*local.patients, repacked), (*local.grades, 1))
    with pytest.raises(CohortError, match=r"1 of these patients were in the model's training.*Somebody"):
        adapt_model(parent, joined, (), Wish(tmp_path / "out", None, "cpu"), ignore)
    assert not (tmp_path / "out").exists()


def test_too_few_patients_are_refused_with_how_many_it_takes(parent, site, tmp_path):
    local = site.cohort()
    hgg = [place for place, grade in enumerate(local.grades) if grade][:8]
    lgg = [place for place, grade in enumerate(local.grades) if not grade]
    with pytest.raises(CohortError, match=r"8 HGG patients, and adapting takes 9 of each grade. At this mix about \d+"):
        adapt_model(parent, local.select(sorted(lgg + hgg)), (), Wish(tmp_path / "out", None, "cpu"), ignore)


def test_few_patients_keep_the_parents_image_ranges_and_say_so(parent, site, tmp_path):
    model = adapt_model(parent, site.cohort(), (), Wish(tmp_path / "out", "sensitivity=0.9", "cpu"), ignore).model
    found = model.manifest.adaptation
    assert (found.bounds, found.unlabelled) == ("parent", 0)
    assert model.manifest.out_of_distribution.bounds == parent.manifest.out_of_distribution.bounds
    assert model.manifest.calibration.rule == "sensitivity=0.9"
    assert "take 39 patients, and there were 24" in (model.folder / CARD).read_text()


def test_what_cannot_be_adapted_is_refused(parent, adapted, site, folder, tmp_path):
    with pytest.raises(ModelError, match="was adapted already"):
        adapt_model(adapted, site.cohort(), (), Wish(tmp_path / "out", None, "cpu"), ignore)
    with pytest.raises(ModelError, match="is the model to adapt"):
        adapt_model(parent, site.cohort(), (), Wish(parent.folder, None, "cpu"), ignore)
    earlier = open_model(folder)
    write_manifest(folder, earlier.manifest.model_copy(update={"people": None}))
    with pytest.raises(ModelError, match="no digests of its training patients"):
        adapt_model(open_model(folder), site.cohort(), (), Wish(tmp_path / "out", None, "cpu"), ignore)
    (folder / CARD).write_text("altered")
    write_manifest(folder, earlier.manifest)
    with pytest.raises(ModelError, match="was altered"):
        adapt_model(open_model(folder), site.cohort(), (), Wish(tmp_path / "out", None, "cpu"), ignore)


def test_the_command_as_the_readme_writes_it(grade, parent, site, tmp_path):
    out = tmp_path / "here"
    words = ("--labels", site.table, "--unlabelled", site.more, "--out", out)
    code, said, _ = grade("adapt", parent.folder, site.folder, *words, "--json")
    facts = json.loads(said)
    assert code == 0
    assert facts["adaptation"]["parent"] == parent.fingerprint
    assert "people" not in facts["adaptation"]
    assert Path(facts["page"]).is_file()
    code, said, _ = grade("predict", site.folder, "--model", out, "--out", tmp_path / "results", "--json")
    assert code == 0
    threshold = open_model(out).manifest.calibration.threshold
    records = json.loads((tmp_path / "results" / "predictions.json").read_text())["patients"]
    assert {record["threshold"] for record in records} == {threshold}
