"""Readers on disk: weights in float16, the configuration in the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from score_video.errors import ScoreError
from score_video.files import output_file

R = TypeVar("R", bound=nn.Module)


def save_reader(reader: nn.Module, config: Any, path: Path, training_heads: tuple[str, ...]) -> None:
    """Writes a reader without the heads that only training needs, whose names begin with one of these.

    Args:
        config: a dataclass.

    Raises:
        OSError: it could not be written; the file that was there stays.
    """
    weights = {
        name: weight.half().contiguous()
        for name, weight in reader.state_dict().items()
        if not name.startswith(training_heads)
    }
    with output_file(path) as temporary:
        temporary.write_bytes(save(weights, {"config": json.dumps(asdict(config))}))


def load_reader(kind: Callable[[Any], R], config: Callable[..., Any], path: Path, training_heads: tuple[str, ...]) -> R:
    """A reader as :func:`save_reader` left it, frozen, in float32.

    Args:
        kind: what makes the reader of its configuration; ``config``: what makes that of its fields.

    Raises:
        FileNotFoundError: there is no such file.
        ScoreError: it is damaged, or holds anything but a reader of this kind; names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(2, "there are no weights of a reader", str(path))
    try:
        with safe_open(path, framework="pt") as file:
            made = config(**json.loads(file.metadata()["config"]))
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  (not a dict)
        with torch.device("cpu"):
            reader = kind(made).float()
        missing, unexpected = reader.load_state_dict(weights, strict=False)
    except SafetensorError as error:
        raise ScoreError(f"{path} is damaged, or no safetensors file: {error}") from None
    except (TypeError, KeyError, ValueError, RuntimeError) as error:  # no configuration, or of something else
        raise ScoreError(f"{path} holds no reader of this world: {error!r}") from None
    if odd := [*unexpected, *(name for name in missing if not name.startswith(training_heads))]:
        raise ScoreError(f"{path} holds the weights of another reader: {odd[0]} is missing or not known")
    return reader.eval().requires_grad_(False)
