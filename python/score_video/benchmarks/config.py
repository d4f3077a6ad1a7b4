"""What is compared, from a YAML file, a protocol's name and a command's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from score_video.benchmarks.protocols import Protocol, find_protocol
from score_video.benchmarks.runs import Run, Settings, plan
from score_video.compressor import PRETRAINED
from score_video.errors import ScoreError

_LISTS = {"model": str, "task": str, "compressor": str, "retention": float}
_SINGLE = {"protocol": str, "model_args": str, "batch_size": int, "limit": int, "include_path": str}
KEYS = (*_LISTS, *_SINGLE)
"""Of the file: the names of the command's options. Those in the first row take one value or a list."""


@dataclass(frozen=True)
class Comparison:
    """What is run, with what all runs share, and whose figures stand beside."""

    runs: list[Run]
    settings: Settings
    protocol: Protocol | None


def read_config(path: Path) -> dict[str, Any]:
    """Reads a YAML file with some of ``KEYS``.

    Raises:
        FileNotFoundError: there is no such file.
        ScoreError: it is not YAML, or a key or a value cannot be; names both.
    """
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such configuration", str(path))
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScoreError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(given, dict):
        raise ScoreError(f"{path}: must be a mapping with the keys {', '.join(KEYS)}, got {given!r}")
    config: dict[str, Any] = {}
    for key, value in given.items():
        if key not in KEYS:
            raise ScoreError(f"{path}: there is no key {key!r}; there are {', '.join(KEYS)}")
        if value is not None:
            config[key] = _value(f"{path}: {key}", key, value)
    return config


def _value(where: str, key: str, value: Any) -> Any:
    if key in _LISTS:
        return [_single(where, one, _LISTS[key]) for one in (value if isinstance(value, list) else [value])]
    return _single(where, value, _SINGLE[key])


def _single(where: str, value: Any, kind: type) -> Any:
    takes = (int, float) if kind is float else (kind,)
    if not isinstance(value, takes) or isinstance(value, bool):
        raise ScoreError(f"{where} must be of type {kind.__name__}, got {value!r}")
    return kind(value)


def comparison(given: Mapping[str, Any]) -> Comparison:
    """What ``KEYS`` say, a protocol's own where they leave it open; defaults are those of the command.

    Raises:
        ScoreError: there is no model or no task, or a name or a number cannot be.
    """
    protocol = find_protocol(given["protocol"]) if given.get("protocol") else None
    preset: dict[str, Any] = {"compressor": [PRETRAINED], "retention": [0.1], "model_args": ""}
    if protocol is not None:
        preset = {
            "model": [protocol.model],
            "task": protocol.tasks,
            "compressor": protocol.compressors,
            "retention": protocol.retentions,
            "model_args": f"max_num_frames={protocol.frames}",
        }
    chosen = preset | {key: value for key, value in given.items() if value is not None}
    if protocol is not None and given.get("model_args"):
        # of one that is there twice the last counts
        chosen["model_args"] = f"{preset['model_args']},{given['model_args']}"
    for key in ("model", "task"):
        if not chosen.get(key):
            raise ScoreError(f"--{key} must be given, or in --config, or by a --protocol")
    for retention in chosen["retention"]:
        if not 0 < retention <= 1:
            raise ScoreError(f"retention must be above 0 and at most 1, got {retention}")
    for key in ("batch_size", "limit"):
        if chosen.get(key) is not None and chosen[key] < 1:
            raise ScoreError(f"{key} must be at least 1, got {chosen[key]}")
    settings = Settings(
        tuple(chosen["task"]),
        chosen["model_args"],
        chosen.get("batch_size", 1),
        chosen.get("limit"),
        chosen.get("include_path"),
    )
    if protocol is not None and [Path(model).name for model in chosen["model"]] != [Path(protocol.model).name]:
        protocol = None  # figures of another model
    return Comparison(plan(chosen["model"], chosen["compressor"], chosen["retention"]), settings, protocol)
