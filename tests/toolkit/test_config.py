import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from toolkit.config import PRESETS, Settings, dump_settings, load_settings, parse_rule
from toolkit.errors import SettingsError


def write(folder, text):
    file = folder / "grade.toml"
    file.write_text(text)
    return file


def test_later_wins(tmp_path):
    file = write(tmp_path, 'strategy = "legacy"\n[training]\nhead_lr = 3e-4\nlr = 2e-4\n')
    training = load_settings(file, None, ("training.lr=5e-5",)).training
    assert (training.batch_size, training.head_lr, training.lr) == (2, 3e-4, 5e-5)  # preset, file, --set


def test_the_table_of_the_design():
    stable, ldam, legacy = (load_settings(None, name).training for name in ("stable", "ldam", "legacy"))
    assert [t.sampler for t in (stable, ldam, legacy)] == ["weighted", "shuffle", "weighted"]
    assert [t.loss for t in (stable, ldam, legacy)] == ["cross-entropy", "ldam", "ldam"]
    assert [(t.ldam_max_m, t.ldam_s, t.drw_epoch) for t in (ldam, legacy)] == [(0.15, 12, 1), (0.2, 15, 25)]
    assert [t.batch_size * t.accumulation for t in (stable, ldam, legacy)] == [8, 8, 4]
    assert [(t.lr, t.head_lr) for t in (stable, ldam, legacy)] == [(1e-4, 2e-4), (1e-4, 2e-4), (1e-4, 5e-4)]
    assert [(t.early_stopping, t.min_epochs) for t in (stable, ldam, legacy)] == [(10, 15), (10, 15), (7, 10)]
    assert [t.warmup_epochs for t in (stable, ldam, legacy)] == [3, 3, 4]
    assert [t.augment.rotation for t in (stable, ldam, legacy)] == [10, 10, 11.5]


def test_paths_are_relative_to_the_file(tmp_path):
    file = write(tmp_path, '[data]\ncohort = "BraTS"\nlabels = "/abs/labels.csv"\nvalidation = "held out"\n')
    data = load_settings(file).data
    assert data.cohort == tmp_path / "BraTS"
    assert data.labels.file == Path("/abs/labels.csv")
    assert data.validation == tmp_path / "held out"


NUL = chr(92) + "u0000"  # as TOML writes it
WRONG = {
    "strategy = ['x']": "strategy ['x'] is unknown; choose one of stable, ldam, legacy",
    "strategy = {a = 1}": "strategy {'a': 1} is unknown",
    f"[training]\nepochs = {'9' * 5000}": "is not valid TOML: it holds a whole number beyond 64 bits",
    f"[training]\nepochs = 0x{'f' * 5000}": "is not valid TOML: it holds a whole number beyond 64 bits",
    f"[training]\nepochs = {10**30}": "is not valid TOML: it holds a whole number beyond 64 bits",
    "[training]\nepochs = 1000001": "setting training.epochs = 1000001 in",
    "[training]\nwarmup_epochs = inf": "setting training.warmup_epochs = inf in",
    f"[training]\nseed = {2**64}": "is not valid TOML: it holds a whole number beyond 64 bits",
    f"x = {'[' * 3000}{']' * 3000}": "is not valid TOML: it is nested too deep",
    f"x = {'[' * 17}{']' * 17}": "is not valid TOML: it is nested too deep",
    f"a{'.a' * 3000} = 1": "is not valid TOML: it is nested too deep",
    f'[training]\ndevice = "cuda:{"9" * 5000}"': "setting training.device = 'cuda:999",
    '[training]\ndevice = "cuda:\\u0663"': "setting training.device = 'cuda:",
    f'[network]\npretrained = "a{NUL}b"': "setting network.pretrained = 'a\\x00b' in",
    f'[data]\ncache = "a{NUL}b"': "no file and no address can hold the character NUL",
    f'[data]\nvalidation = "a{NUL}b"': "setting data.validation = 'a\\x00b' in",
    f'[data]\nlabels = "a{NUL}b"': "no file and no address can hold the character NUL",
    f'[training]\ntracker_uri = "a{NUL}b"': "setting training.tracker_uri = 'a\\x00b' in",
    f'[hospital]\nfolder = "a{NUL}b"': "setting hospital.folder = 'a\\x00b' in",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_what_no_setting_can_be_is_a_sentence(tmp_path, text):
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text))
    assert WRONG[text] in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training.seed": 2**63}, "setting training.seed = 9223372036854775808"),
        ({"training.epochs": 10**5000}, "setting training.epochs = a number of thousands of digits"),
        ({"data.cache": Path("a\0b")}, "no file and no address can hold the character NUL"),
    ],
)
def test_values_from_python_have_the_same_limits(changes, sentence):
    with pytest.raises(SettingsError, match=sentence):
        load_settings(None, changes=changes)
    assert load_settings(None, changes={"training.seed": 2**63 - 1}).training.seed == 2**63 - 1


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 3000 + "]" * 3000], ids=["long", "deep"])
def test_a_value_on_the_command_line_has_the_same_limits(value):
    with pytest.raises(SettingsError, match=r"^--set 'training\.epochs=") as caught:
        load_settings(None, None, (f"training.epochs={value}",))
    assert len(str(caught.value)) < 400


def test_settings_that_are_no_plain_file_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    for file in (tmp_path / "pipe.toml", Path("/dev/zero")):
        with pytest.raises(SettingsError, match="it is not a plain file"):
            load_settings(file)


@pytest.mark.parametrize("name", PRESETS)
def test_dump_and_load_again(tmp_path, name):
    settings = load_settings(None, name, ("data.cohort=somewhere", 'data.labels={file="x.csv",lgg=["low"]}'))
    assert load_settings(write(tmp_path, dump_settings(settings))) == settings


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Settings().training.lr = 1.0


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("training.epoch=5", "unknown setting 'training.epoch' in --set; the nearest one is training.epochs"),
        ("epochs=5", "unknown setting 'epochs' in --set; the nearest one is training.epochs"),
        ("training.depth=10", "unknown setting 'training.depth' in --set; the nearest one is network.depth"),
        ("data.zzz=5", "unknown setting 'data.zzz' in --set; known there: spacing, shape, cohort"),
        ("training.augment.rot=5", "unknown setting 'training.augment.rot'"),
        ("colour=1", "unknown setting 'colour' in --set; known there: strategy, data"),
        ("training.epochs=many", "training.epochs = 'many'"),
        ("training.epochs=0", "training.epochs = 0 in --set: .*greater than or equal to 1"),
        ("data.validation=1.5", "a share is between 0 and 1"),
        ("data.shape=[1,2,3]", "16 to 512 voxels"),
        ("data.spacing=nan", "data.spacing = nan"),
        ("training.device=gpu", "training.device"),
        ("network.depth=12", "10, 18, 34 or 50"),
        ("calibration.rule=cost=1", "'cost=1' is no threshold rule"),
        ("strategy=fast", "strategy 'fast' is unknown; choose one of stable, ldam, legacy"),
        ("nonsense", "write it as branch.key=value"),
    ],
)
def test_refused_settings(override, reason):
    with pytest.raises(SettingsError, match=reason):
        load_settings(None, None, (override,))


def test_refused_files(tmp_path):
    with pytest.raises(SettingsError, match="there is no settings file"):
        load_settings(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_settings(write(tmp_path, "[data\n"))
    with pytest.raises(SettingsError, match=r"unknown setting 'data.fold' in --set; the nearest one is data.folds"):
        load_settings(write(tmp_path, "[data]\nfolds = 2\n"), None, ("data.fold=3",))
    changed = load_settings(write(tmp_path, "[data]\nfolds = 2\n"), None, ("data.folds=3",), {"data.folds": 4})
    assert changed.data.folds == 4
    with pytest.raises(SettingsError, match=r"unknown setting 'data.cohrt' in .*grade.toml"):
        load_settings(write(tmp_path, '[data]\ncohrt = "x"\n'))


def test_rules():
    assert parse_rule("youden") == ("youden", 0, 0)
    assert parse_rule("sensitivity=0.95") == ("sensitivity", 0.95, 0)
    assert parse_rule("cost=5:1") == ("cost", 5, 1)
    for rule in ("", "youden=1", "sensitivity=1", "sensitivity=0", "sensitivity=nan", "cost=1:0", "cost=inf:1", "best"):
        with pytest.raises(ValueError, match="no threshold rule"):
            parse_rule(rule)
