"""The configuration file of ``score train``: read, overridden by flags, checked to the last key, and written again."""

from __future__ import annotations

import difflib
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from score_video.errors import ScoreError
from score_video.files import is_text, output_file
from score_video.renamed import with_new_names
from score_video.rl.config import FIELDS, RENAMED, ScoreConfig
from score_video.rl.presets import PRESETS

FILE = "train_config.yaml"
"""What a run is saved as in its output folder."""

SECTIONS: dict[str, Any] = {
    "preset": None,
    "environment": "miniature",
    "environment_options": {},
    "data": {},
    "policy": {},
    "training": {},
}
"""The keys of a configuration, and what they are if they are not given."""


def read_config(path: Path | None) -> dict[str, Any]:
    """Reads a YAML file; without one, all that it could say is left at its defaults.

    Returns:
        all of ``SECTIONS``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or has keys that there are not; names the file, and the line or the key.
    """
    if path is None:
        return {key: _copy(value) for key, value in SECTIONS.items()}
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such configuration", str(path))
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise ScoreError(f"{path}{where}: not YAML ({error.problem})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScoreError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
    if not _is_text(given):
        raise ScoreError(f"{path}: must be text, and an escape in it stands for half of a character")
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ScoreError(f"{path}: must be a mapping with the keys {', '.join(SECTIONS)}, got {given!r}")
    check_keys(given, SECTIONS, str(path))
    config = {key: _copy(value) if given.get(key) is None else given[key] for key, value in SECTIONS.items()}
    if not isinstance(config["environment"], str):
        raise ScoreError(f"{path}: environment must be a name, got {config['environment']!r}")
    if config["preset"] not in (None, *PRESETS):
        raise ScoreError(f"{path}: preset must be one of {', '.join(PRESETS)}, got {config['preset']!r}")
    for key in [key for key in SECTIONS if key not in ("environment", "preset")]:
        if not isinstance(config[key], dict):
            raise ScoreError(f"{path}: {key} must be a mapping, got {config[key]!r}")
    try:
        config["training"] = with_new_names(config["training"], RENAMED, up=1)
    except ScoreError as error:
        raise ScoreError(f"{path}: training: {error}") from None
    return config


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Reads flags ``name=value``, the value in YAML. Raises ValueError for what has no such form."""
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ScoreError(f"--set must be name=value, got {setting!r}")
        try:
            parsed[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ScoreError(f"--set {name}: not YAML: {value!r}") from None
        if not _is_text(parsed[name]):
            raise ScoreError(f"--set {name}: must be text, and an escape in it stands for half of a character")
    try:
        return with_new_names(parsed, RENAMED, up=1)
    except ScoreError as error:
        raise ScoreError(f"--set: {error}") from None


def with_preset(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the settings of its preset under those that it gives, and without the preset's name.

    Raises:
        ValueError: there is no such preset.
    """
    spelled_out = {**config, "preset": None}
    if (name := config["preset"]) is None:
        return spelled_out
    if name not in PRESETS:
        raise ScoreError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    make, policy = PRESETS[name]
    steps = config["training"].get("max_steps", _entry("max_steps").default)
    training = make(steps) if isinstance(steps, int) else {}  # what is no integer is refused with the other settings
    return {**spelled_out, "policy": {**policy, **config["policy"]}, "training": {**training, **config["training"]}}


def make_training(training: Mapping[str, Any]) -> ScoreConfig:
    """The settings, checked for names and types, as a :class:`ScoreConfig`.

    Raises:
        ValueError: names the setting and what is wrong with it; for one that there is not, one of a similar name.
    """
    check_keys(training, FIELDS, "training")
    hints = typing.get_type_hints(ScoreConfig)
    settings = {name: _typed(name, value, hints[name]) for name, value in training.items()}
    try:
        return ScoreConfig(**settings)
    except ScoreError:
        raise
    except (ValueError, ImportError, LookupError, NotImplementedError, RuntimeError, TypeError) as error:
        # transformers' way of saying that a package is missing, or that a mapping has the wrong keys
        raise ScoreError(f"training: {' '.join(str(error).split())}") from error


def _typed(name: str, value: Any, hint: Any) -> Any:
    kinds = typing.get_args(hint) or (hint,)
    if value is None and NoneType in kinds:
        return value
    choices = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)), None)
    if choices is not None and bool not in kinds:
        return _one_of(name, value, [member.value for member in choices])
    if isinstance(value, bool):
        fits = bool in kinds
    elif float in kinds and isinstance(value, (int, float, str)) and not (isinstance(value, str) and str in kinds):
        try:
            return float(value) if isinstance(value, str) else value  # YAML reads 3e-3 as a string
        except ValueError:
            fits = False
    else:
        fits = any(isinstance(value, typing.get_origin(kind) or kind) for kind in kinds if kind is not NoneType)
    if not fits:
        words = {bool: "true or false", int: "an integer", float: "a number", str: "a string", NoneType: "null"}
        wanted = " or ".join(words.get(kind, f"a {(typing.get_origin(kind) or kind).__name__}") for kind in kinds)
        raise ScoreError(f"training: {name} must be {wanted}, got {value!r}")
    return value


def _one_of(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """YAML reads an unquoted ``no`` as false, and here that can mean nothing else."""
    value = "no" if value is False and "no" in choices else getattr(value, "value", value)
    if value not in choices or isinstance(value, bool):
        raise ScoreError(f"training: {name} must be one of {', '.join(map(str, choices))}, got {value!r}")
    return value


def write_config(folder: Path, config: Mapping[str, Any], training: ScoreConfig) -> None:
    """Writes what is run to the run's folder: what was given, and all settings of ours whatever they are."""
    # defaults that the machine decides are left to the machine it is resumed on
    fixed = [n for n in vars(ScoreConfig)["__annotations__"] if not callable(_entry(n).default_factory)]
    settings = {name: getattr(training, name) for name in FIELDS if name in fixed or name in config["training"]}
    # where it stands says where it is; and what is secret is nobody's to read
    shown = {n: _plain(v) for n, v in settings.items() if n != "output_dir" and not n.endswith("_token")}
    sections = {name: value for name, value in config.items() if name != "preset"}  # is spelled out
    text = yaml.safe_dump({**sections, "training": shown}, sort_keys=False, allow_unicode=True)
    with output_file(folder / FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def check_keys(given: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    """Raises ValueError for a key that there is not, with those that are like it."""
    names = list(known)
    for key in given:
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
            raise ScoreError(f"{where}: there is no {key!r}; {hint}")


def _is_text(value: Any) -> bool:
    """Whether all strings in it can be written in UTF-8: YAML's escapes can make others."""
    if isinstance(value, Mapping):
        return all(_is_text(key) and _is_text(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(_is_text(entry) for entry in value)
    return not isinstance(value, str) or is_text(value)


def _entry(name: str) -> Any:
    return ScoreConfig.__dataclass_fields__[name]


def _plain(value: Any) -> Any:
    """Enumerations as the strings that they are."""
    return getattr(value, "value", value)


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
