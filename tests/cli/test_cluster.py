"""`grade predict --cluster`."""

import json

import pytest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to its end
def test_a_cohort_on_a_cluster_of_this_machine(project, made, grade):
    pytest.importorskip("ray")
    (project / "model").symlink_to(made / "model")
    next((project / "cohort/HGG/p01").glob("*_t2.nii*")).unlink()
    alone, _, _ = grade("predict", "cohort", "--out", "alone", "--device", "cpu")
    code, out, err = grade("predict", "cohort", "--cluster", "local", "--device", "cpu")
    assert code == alone == 3, err
    text = " ".join(err.split())
    assert "On Ray on this machine alone: 1 node." in text
    assert "11 graded, 1 refused, 0 retried; 12 in" in text
    assert "t2 missing" in " ".join(out.split())
    found, wanted = (json.loads((project / name / "predictions.json").read_text()) for name in ("results", "alone"))
    assert [record["patient"] for record in found["patients"]] == [record["patient"] for record in wanted["patients"]]
    for ours, theirs in zip(found["patients"], wanted["patients"], strict=True):
        assert (ours["grade"], ours["verdict"], ours["inputs"]) == (
            theirs["grade"],
            theirs["verdict"],
            theirs["inputs"],
        )
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-6)
    assert found.keys() == wanted.keys()


def test_pages_are_not_made_on_a_cluster(project, grade):
    code, _, err = grade("predict", "cohort", "--cluster", "auto", "--report")
    assert code == 2
    assert "--report needs the images at hand" in " ".join(err.split())


def test_without_ray_the_extra_is_named(project, grade, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = grade("predict", "cohort", "--cluster", "auto")
    assert code == 1
    assert "this needs the package ray; pip install 'glioma-grade[cluster]'" in " ".join(err.split())
