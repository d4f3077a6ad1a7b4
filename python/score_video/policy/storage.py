"""Policies and compressors on disk and on the Hugging Face hub: config.json and model.safetensors, never a pickle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from score_video.errors import ScoreError

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def find_file(source: str | Path, name: str, revision: str | None = None) -> Path:
    """The file of that name in a folder, or in a repository of the hub (downloaded unless it is in the cache).

    Args:
        source: a folder, or an id "owner/name".
        revision: the hub's branch, tag or commit.

    Raises:
        FileNotFoundError: there is no such folder, and it cannot be an id; or it has no such file.
        OSError: the hub could not be asked, or has no such repository or file; as huggingface_hub says it.
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise FileNotFoundError(2, f"holds no {name}", str(source))
        return folder / name
    if isinstance(source, Path) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        raise FileNotFoundError(2, "is neither a folder nor the id of a repository on the hub", str(source))
    from huggingface_hub import hf_hub_download  # takes a while, and folders do not need it

    return Path(hf_hub_download(source, name, revision=revision))


def read_config(path: Path) -> dict[str, Any]:
    """What a config.json holds. Raises ScoreError, which names the file, where it is no object of JSON."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8; nested without end
        raise ScoreError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ScoreError(f"{path} must hold an object, got {type(config).__name__}")
    return config


def load_weights(module: nn.Module, path: Path) -> None:
    """Reads a module's weights from a safetensors file, whose dtype it takes; the module may be on the device meta.

    Raises ScoreError, which names the file, where it is damaged or holds the weights of another module.
    """
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ScoreError(f"{path} is damaged: {error}") from None
    dtypes = {weight.dtype for weight in weights.values()}
    if len(dtypes) != 1:
        raise ScoreError(f"{path} must hold weights of one dtype, got {len(dtypes)}")
    module.to(dtype=dtypes.pop())
    try:
        # cloned: what is loaded lies in the file, which somebody may shorten
        module.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=True)
    except RuntimeError as error:
        raise ScoreError(f"{path} holds the weights of another policy: {' '.join(str(error).split())}") from None


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Writes weights as safetensors, from whatever device they are on."""
    on_disk = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    path.write_bytes(save(on_disk, metadata={"format": "pt"}))  # not save_file, whose files are for their owner alone
