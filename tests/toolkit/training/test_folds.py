from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.config import NetworkSettings, Settings
from toolkit.errors import RunError
from toolkit.evaluation.calibration_fit import fit_calibration
from toolkit.evaluation.metrics import auc
from toolkit.training.folds import begin_folds, choose_member, train_folds
from toolkit.training.loop.scans import TrainingData
from toolkit.training.network.ensemble import Ensemble, members_of
from toolkit.training.network.network import build_network, fold_batchnorm
from toolkit.training.prepare import Prepared
from toolkit.training.runs.folder import fold_runs, open_run
from toolkit.training.runs.networks import load_network
from toolkit.training.runs.run import Run

pytestmark = pytest.mark.usefixtures("narrow", "short_report")
Watcher = Callable[..., Any]


class Killed(Exception):
    """The process dies here."""


def prepared_of(data: TrainingData) -> Prepared:
    scans = {patient.folder: scan for patient, scan in zip(data.cohort.patients, data.scans, strict=True)}
    return Prepared(data.cohort, None, scans, ())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def everyone(data: Callable[..., TrainingData]) -> TrainingData:
    return data([0, 1, 1] * 5, seed=3)


@pytest.fixture(scope="module")
def trained(
    narrow: None,
    short_report: None,
    tmp_path_factory: pytest.TempPathFactory,
    make_settings: Callable[..., Settings],
    recorder: Watcher,
    everyone: TrainingData,
) -> Run:
    """Two repeats of three folds."""
    settings = make_settings("data.folds=3", "data.repeats=2", "training.epochs=2")
    prepared = prepared_of(everyone)
    run = begin_folds(tmp_path_factory.mktemp("folds") / "cv", settings, prepared)
    train_folds(run, prepared.scans, recorder())
    return run


def test_folds_are_ordinary_runs_with_seeds_of_their_own(trained: Run) -> None:
    folds = fold_runs(trained)
    assert [fold.folder.name for fold in folds] == [f"fold-{number}" for number in range(1, 7)]
    assert [fold.settings.training.seed for fold in folds] == list(range(6))
    assert {(fold.settings.data.folds, fold.settings.data.repeats) for fold in folds} == {(0, 1)}
    assert all(fold.ended and len(fold.history()) == 2 for fold in folds)
    assert trained.ended
    assert (trained.folder.parent / "latest").readlink() == Path("cv")
    first, second = ({p.id for p in folds[i].validation_patients().patients} for i in (0, 3))
    assert first != second  # the second repeat is dealt anew


def test_everybody_is_graded_by_networks_trained_on_others(trained: Run, everyone: TrainingData) -> None:
    scans = dict(zip((p.id for p in everyone.cohort.patients), everyone.scans, strict=True))
    sums = {name: np.zeros(2) for name in scans}
    for fold in fold_runs(trained):
        strangers = [patient.id for patient in fold.validation_patients().patients]
        assert not {patient.id for patient in fold.training_patients().patients} & set(strangers)
        batch = torch.from_numpy(np.stack([scans[name] for name in strangers]))
        with torch.inference_mode():
            answers = fold.load_best()(batch).logits.numpy()
        for name, logits in zip(strangers, answers, strict=True):
            sums[name] += logits / 2  # of two repeats
    table = trained.validation()
    assert table.patients == tuple(scans)
    np.testing.assert_allclose(table.logits, [sums[name] for name in table.patients], atol=1e-5)


def test_pooled_answers_give_calibration_and_metrics(trained: Run) -> None:
    table, calibration = trained.validation(), trained.calibration()
    assert calibration == fit_calibration(table.logit, table.grades, trained.settings.calibration)
    assert calibration.cases == {"LGG": 5, "HGG": 10}
    content = json.loads((trained.folder / "folds.json").read_text())
    assert content["pooled"]["auc"][0] == auc(table.grades, table.logit)
    assert [fold["name"] for fold in content["folds"]] == [f"fold-{number}" for number in range(1, 7)]
    own = fold_runs(trained)[1].validation()
    assert content["folds"][1]["metrics"]["auc"][0] == auc(own.grades, own.logit)


def test_killed_and_resumed_gives_the_same_answers(
    trained: Run, tmp_path: Path, recorder: Watcher, everyone: TrainingData
) -> None:
    prepared = prepared_of(everyone)
    run = begin_folds(tmp_path / "cv", trained.settings, prepared)
    steps = iter(range(1000))

    def kill(epoch: int, step: int) -> None:
        if next(steps) == 9:
            raise Killed

    with pytest.raises(Killed):
        train_folds(run, prepared.scans, recorder(kill))
    assert not run.ended
    train_folds(open_run(run.folder), prepared.scans, recorder())
    assert (run.folder / "validation.csv").read_bytes() == (trained.folder / "validation.csv").read_bytes()


def test_a_fold_that_is_gone_is_named(trained: Run, tmp_path: Path, everyone: TrainingData) -> None:
    run = begin_folds(tmp_path / "cv", trained.settings, prepared_of(everyone))
    (run.folder / "fold-4").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"there is no run .*fold-4"):
        fold_runs(run)


def test_members(trained: Run) -> None:
    best = choose_member(trained, "best")
    found = [auc(fold.validation().grades, fold.validation().logit) or 0 for fold in fold_runs(trained)]
    assert best.folder.name == f"fold-{int(np.argmax(found)) + 1}"
    assert choose_member(trained, "3").folder.name == "fold-3"
    for wrong in ("0", "7", "worst"):
        with pytest.raises(RunError, match="write best, or a number from 1 to 6"):
            choose_member(trained, wrong)
    with pytest.raises(RunError, match="has no folds"):
        choose_member(best, "best")
    assert len(members_of(load_network(trained))) == 6


def test_ensemble_is_the_mean_of_its_members() -> None:
    networks = []
    for seed in range(3):
        torch.manual_seed(seed)
        networks.append(build_network(NetworkSettings(depth=10), cosine_head=False).eval())
    scans = torch.randn(2, 4, 32, 32, 32)
    with torch.inference_mode():
        single = [network(scans) for network in networks]
        found = Ensemble(networks).eval()(scans)
        folded = fold_batchnorm(Ensemble(networks))(scans)
    torch.testing.assert_close(found.logits, (single[0].logits + single[1].logits + single[2].logits) / 3)
    torch.testing.assert_close(found.evidence, (single[0].evidence + single[1].evidence + single[2].evidence) / 3)
    torch.testing.assert_close(found.evidence.mean(dim=(1, 2, 3)), found.logits[:, 1] - found.logits[:, 0])
    size = single[0].features.shape[1]
    assert found.features.shape == (2, 3 * size)
    assert torch.equal(found.features[:, size : 2 * size], single[1].features)
    for one, other in zip(folded, found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
