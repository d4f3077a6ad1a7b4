"""Loads a model and its processor, from a folder or from the hub, with errors of one line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError

from score_video.errors import ScoreError
from score_video.mllm.adapter import supported_models
from score_video.mllm.registry import Family, family_of_checkpoint, refusal

# Which of them transformers raises depends on the file that is missing or bad
_LOADING_ERRORS = (AttributeError, ImportError, KeyError, OSError, TypeError, ValueError)

_LEAST_VOCABULARY = 256
"""Tokens, of any tokenizer that can write every byte: transformers makes one of a few tokens where the files are not
there, and says nothing."""


def load_model(
    source: str,
    device: torch.device,
    dtype: torch.dtype | None = None,
    device_map: str | Mapping[str, Any] | None = None,
) -> Any:
    """A supported model, frozen and in eval mode. Only safetensors are read, and no code of the repository is run.

    Args:
        source: a folder, or the id of a repository on the hub, "owner/name".
        device: the device to load the model onto.
        dtype: what its weights are loaded as; None: the one they were saved in.
        device_map: where its parts go in place of ``device``, as accelerate has it: "auto" spreads them over the
            accelerators of the machine. None: all of it is on ``device``.

    Raises:
        ValueError: its type is not supported (lists those that are), or weights are missing or damaged; or there is no
            room for all of it on the devices of ``device_map``.
        OSError: there is no such folder or repository, it is not complete, or the hub does not give it.
    """
    family = _family(source)
    import transformers

    loader = getattr(transformers, family.loader or "AutoModelForImageTextToText")
    try:
        loaded: Any = loader.from_pretrained(
            source,
            dtype=dtype or "auto",
            device_map=device_map,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise ScoreError(f"{source}: its weights are damaged: {error}") from None
    except OSError as error:
        raise OSError(f"{source}: {_one_line(error)}") from None
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ScoreError(f"{source} lacks {len(missing)} of its weights, {missing[0]} among them")
    if device_map is None:
        model.to(device)
    elif any(parameter.is_meta for parameter in model.parameters()):
        raise ScoreError(f"device_map must put all of {source} on devices, but there is no room for parts of it")
    return model.eval().requires_grad_(False)


def load_processor(source: str) -> Any:
    """The processor of a model; :mod:`score_video.mllm.torchvision_check` tells whether that can work.

    Args:
        source: the model's folder or id, as for :func:`load_model`.

    Raises:
        ValueError: the model's type is not supported; there is no processor, or none that takes videos; or it cannot
            be loaded, and why.
        OSError: as for :func:`load_model`.
    """
    _family(source)
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except _LOADING_ERRORS as error:
        raise ScoreError(f"{source}: its processor cannot be loaded: {_one_line(error)}") from None
    if getattr(processor, "video_processor", None) is None:  # without a processor's files: the tokenizer alone, say
        raise ScoreError(f"{source} has no processor that takes videos, only {type(processor).__name__}")
    if len(processor.tokenizer) < _LEAST_VOCABULARY:
        raise ScoreError(f"{source} has no tokenizer (its files are missing)")
    return processor


def local_tokenizer(source: str) -> Any:
    """The tokenizer in a folder or in the hub's cache; nothing is downloaded. None: there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except _LOADING_ERRORS:
        return None
    return tokenizer if len(tokenizer) >= _LEAST_VOCABULARY else None


def _family(source: str) -> Family:
    kind = _model_type(source)
    if (family := family_of_checkpoint(kind)) is not None:
        return family
    if (reason := refusal(kind)) is not None:
        raise ScoreError(f"{source}: models of type {kind!r} cannot be compressed: {reason}")
    raise ScoreError(
        f"{source}: models of type {kind!r} are not supported; supported are {', '.join(supported_models())}"
    )


def _model_type(source: str) -> str:
    """The ``model_type`` in a model's config.json."""
    path = _config_file(source)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, not UTF-8
        raise ScoreError(f"{path} is not JSON: {error}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise ScoreError(f"{path} is not the configuration of a model: it has no model_type")
    return kind


def _config_file(source: str) -> Path:
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(2, "holds no model (no config.json)", source)
        return folder / "config.json"
    if folder.exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        raise FileNotFoundError(2, "is neither a folder nor the id of a repository on the hub", source)
    try:
        return Path(hf_hub_download(source, "config.json"))
    except LocalEntryNotFoundError:
        raise FileNotFoundError(
            2, "is no folder here, is not in the hub's cache, and the hub cannot be reached", source
        ) from None
    except GatedRepoError:
        raise OSError(f"{source}: the hub gives it only to those who were granted access (hf auth login)") from None
    except RepositoryNotFoundError:
        raise FileNotFoundError(2, "is no folder here, and the hub has no such repository", source) from None
    except EntryNotFoundError:
        raise FileNotFoundError(2, "holds no model (no config.json)", source) from None
    except HfHubHTTPError as error:
        raise OSError(f"{source}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
