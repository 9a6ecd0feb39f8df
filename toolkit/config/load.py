"""Settings from `grade.toml`, a preset and single values, and back to text.

Order, later wins: the defaults, the strategy's preset, `grade.toml`, `--set`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from toolkit.config.presets import PRESETS
from toolkit.config.settings import CalibrationSettings, ExportSettings, Settings
from toolkit.errors import SettingsError
from toolkit.plain import read_bytes

# What a training did before there was a setting for it: a run's file names every value, so one that it lacks is newer.
EARLIER: dict[str, Any] = {"training": {"frozen_bn_epoch": 0}}
_DEPTH = 16  # of tables and lists in each other
_BITS = 63  # of a whole number in TOML, apart from its sign
_LONGEST = 200  # characters of a value in a sentence


def load_settings(
    file: Path | None,
    strategy: str | None = None,
    overrides: tuple[str, ...] = (),
    changes: Mapping[str, object] = MappingProxyType({}),
    of_run: bool = False,
) -> Settings:
    """Settings from a file, a preset and single values.

    Args:
        file: a `grade.toml`; None takes the defaults, with paths relative to the working folder.
        strategy: takes precedence over the file's `strategy`.
        overrides: `branch.key=value`, the value in TOML spelling; a bare word is taken as a string.
        changes: `branch.key` -> value, which wins over `overrides`; None changes nothing.
        of_run: the file is a run's, which names every setting that there was when it began.

    Raises:
        SettingsError: no such file, no TOML, an unknown key, a value out of range.
    """
    written = _read_toml(file) if file else {}
    single: dict[str, Any] = {}
    for text in overrides:
        _merge(single, _parse_override(text))
    for key, value in changes.items():
        if value is not None:
            _merge(single, _branches(key, value))
    name = strategy or single.get("strategy") or written.get("strategy", "stable")
    if not isinstance(name, str) or name not in PRESETS:
        raise SettingsError(f"strategy {_shown(name)} is unknown; choose one of {', '.join(PRESETS)}.")
    tree: dict[str, Any] = {}
    for layer in (PRESETS[name], EARLIER if of_run else {}, written, single, {"strategy": name}):
        _merge(tree, layer)
    base = file.resolve().parent if file else Path.cwd()
    return _absolute(_validate(tree, file, single), base)


def calibration_settings(settings: CalibrationSettings, method: str | None, rule: str | None) -> CalibrationSettings:
    """Calibration settings with another method or rule; None keeps what there is.

    Raises:
        SettingsError: an unknown method or rule.
    """
    changes = {"method": method, "rule": rule}
    tree = settings.model_dump() | {key: value for key, value in changes.items() if value is not None}
    return _validate({"calibration": tree}, None).calibration


def export_settings(settings: ExportSettings, changes: dict[str, Any]) -> ExportSettings:
    """Export settings with some values changed; None keeps what there is.

    Raises:
        SettingsError: a value is out of range, or contradicts another.
    """
    tree = settings.model_dump() | {key: value for key, value in changes.items() if value is not None}
    return _validate({"export": tree}, None).export


def dump_settings(settings: Settings) -> str:
    """The settings as TOML, every value written out, readable by `load_settings`."""
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


def parse_settings(text: str) -> Settings:
    """What `dump_settings` wrote.

    Raises:
        SettingsError: the text is something else.
    """
    try:
        tree = _copy(EARLIER)
        _merge(tree, _parse_toml(text))
        return _validate(tree, None)
    except ValueError as error:
        raise SettingsError(f"the settings are not valid TOML: {error}.") from error


def differences(before: Settings, now: Settings) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ, `branch.key`, with both values."""
    old, new = (_flat(settings.model_dump(mode="json")) for settings in (before, now))
    return {key: (old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key)}


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return _parse_toml(read_bytes(file).decode("utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"there is no settings file {file}; write one, or name another with --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} cannot be read: {error}.") from error
    except ValueError as error:
        raise SettingsError(f"settings file {file} is not valid TOML: {error}.") from error


def _parse_toml(text: str) -> dict[str, Any]:
    """The tree of a TOML text; ValueError where it is none, or beyond what a setting can be."""
    try:
        tree = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python reads no whole number of thousands of digits
        raise ValueError("it holds a whole number beyond 64 bits") from None
    level: list[Any] = [tree]
    for _ in range(_DEPTH):
        if any(type(value) is int and value.bit_length() > _BITS for value in level):
            raise ValueError("it holds a whole number beyond 64 bits")
        level = [one for value in level for one in _inside(value)]
    if level:
        raise ValueError("it is nested too deep")
    return tree


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _shown(value: Any) -> str:
    """A value as a sentence can hold it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"--set {text}: write it as branch.key=value, for example --set training.epochs=20.")
    try:
        return _parse_toml(f"{key}={value}")
    except tomllib.TOMLDecodeError:
        pass
    except ValueError as error:
        raise SettingsError(f"--set {_shown(text)}: {error}.") from error
    try:
        return _parse_toml(f"{key}={_toml_string(value)}")
    except ValueError as error:
        raise SettingsError(f"--set {_shown(text)}: {error}.") from error


def _toml_string(text: str) -> str:
    return tomli_w.dumps({"x": text}).partition("=")[2].strip()


def _merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = _copy(value)


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def _branches(key: str, value: object) -> dict[str, Any]:
    """`a.b` and a value as `{"a": {"b": value}}`."""
    name, dot, rest = key.partition(".")
    return {name: _branches(rest, value) if dot else value}


def _validate(tree: dict[str, Any], file: Path | None, single: Mapping[str, Any] = MappingProxyType({})) -> Settings:
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(_field_names(first["loc"]))
        where = " in --set" if _holds(single, first["loc"]) else f" in {file}" if file else ""
        if first["type"] == "extra_forbidden":
            raise SettingsError(f"unknown setting '{key}'{where}; {_hint(key, first['loc'])}.") from None
        # What contradicts another setting is told of a whole section, which is not shown.
        given = "" if isinstance(first["input"], dict) else f" = {_shown(first['input'])}"
        what = f"setting {key}{given}" if key else "settings"
        raise SettingsError(f"{what}{where}: {_lower(first['msg'])}.") from None


def _field_names(loc: tuple[int | str, ...]) -> list[str]:
    """The part of pydantic's location that a user wrote; unions and tuples add words of their own behind it."""
    branch: Any = Settings
    names: list[str] = []
    for part in loc:
        names.append(str(part))
        field = branch.model_fields.get(part)
        if field is None or not hasattr(field.annotation, "model_fields"):
            break
        branch = field.annotation
    return names


def _holds(tree: Mapping[str, Any], loc: tuple[int | str, ...]) -> bool:
    """Whether a setting was given on the command line, as far as pydantic's location follows what was written."""
    place: Any = tree
    for part in loc:
        if not isinstance(place, Mapping):
            return True
        if part not in place:
            return False
        place = place[part]
    return True


def _hint(key: str, loc: tuple[int | str, ...]) -> str:
    """The setting that was probably meant, in any branch, else those of this branch."""
    keys = [name for name in _keys(Settings, "") if "." in name or "." not in key]
    names = {name.rpartition(".")[2]: name for name in reversed(keys)}
    last = key.rpartition(".")[2]
    near = [names[last]] if last in names else get_close_matches(key, keys, 1, cutoff=0.75)
    near = near or [names[one] for one in get_close_matches(last, names, 1, 0.75)]
    if near:
        return f"the nearest one is {near[0]}"
    branch: Any = Settings
    for part in loc[:-1]:
        fields = getattr(branch, "model_fields", {})
        kind = fields[part].annotation if part in fields else branch
        # A table of branches, or a branch that may be missing, has its branch among the arguments.
        branch = next((one for one in (kind, *get_args(kind)) if hasattr(one, "model_fields")), kind)
    return f"known there: {', '.join(branch.model_fields)}"


def _keys(branch: type[BaseModel], above: str) -> Iterator[str]:
    for name, field in branch.model_fields.items():
        yield f"{above}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{above}{name}.")


def _lower(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise SettingsError(f"the folder {path}: the home folder it names is not known here; write it out.") from None


def _absolute(settings: Settings, base: Path) -> Settings:
    def fix(branch: BaseModel) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        for name, value in branch:
            if isinstance(value, Path):
                changed[name] = base / _expanded(value)
            elif isinstance(value, BaseModel):
                changed[name] = value.model_copy(update=fix(value))
        return changed

    return settings.model_copy(update=fix(settings))
