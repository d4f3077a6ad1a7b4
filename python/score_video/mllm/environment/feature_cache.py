"""Encoded videos on disk, so that a vision tower runs once for each video, and not in every epoch.

An entry is one safetensors file, named by the hash of all that it follows from. It is written beside its place and
renamed, so several processes may share a folder and any of them may be killed; what has been damaged since is made
again, with a warning.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from score_video.errors import ScoreError
from score_video.files import check_folder_to_write, output_file, sha256_of

FORMAT = 3
"""Of the entries; to be raised when their content changes, or what they follow from: 2, which frames a file shows; 3,
types of tokens by name."""

_ABANDONED = 3600  # seconds: a temporary file as old as that is of a process that was killed
_SAMPLES = 64  # of each of a model's parameters


class FeatureCache:
    """A folder of entries.

    Args:
        folder: made with the first entry if it is not there.
        identity: whatever an entry follows from beside the video, as JSON can hold it: model, processor, sampling.

    Raises:
        NotADirectoryError, PermissionError: the folder cannot be made, or may not be written.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        check_folder_to_write(self.folder)
        self._identity = dict(identity)
        for file in self.folder.glob(".*.safetensors-*"):
            with suppress(FileNotFoundError):  # another process may be cleaning up too
                if time.time() - file.stat().st_mtime > _ABANDONED:
                    file.unlink()

    def with_identity(self, **more: Any) -> FeatureCache:
        """The same folder, of entries that follow from more."""
        return FeatureCache(self.folder, {**self._identity, **more})

    def path(self, video: str | Path) -> Path:
        """The entry of a video file, by its content; it need not be there. Raises OSError: it cannot be read."""
        key = {**self._identity, "format": FORMAT, "video": sha256_of(Path(video))}
        return self.folder / f"{_digest(key)}.safetensors"

    def get(self, entry: Path, make: Callable[[], Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
        """The entry at a :meth:`path`, on a device; made and written if it is not there or damaged.

        Raises:
            OSError: it could not be written; names the file.
        """
        try:
            return {name: tensor.to(device) for name, tensor in read_tensors(entry)[0].items()}
        except FileNotFoundError:
            pass
        except (SafetensorError, ValueError) as error:
            warnings.warn(f"{entry} is damaged and made again: {error}", stacklevel=2)
        tensors = {name: tensor.contiguous() for name, tensor in make().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(entry, tensors)
        return tensors


def model_identity(model: Any) -> str:
    """A hash that changes with a model's architecture and weights, from its config and samples of each parameter."""
    digest = hashlib.sha256(_config(model).encode())
    for name, parameter in model.named_parameters():
        flat = parameter.detach().reshape(-1)
        count = min(_SAMPLES, flat.numel())
        places = torch.linspace(0, flat.numel() - 1, count, dtype=torch.float64, device=flat.device).long()
        sample = flat[places].cpu().contiguous().view(torch.uint8)
        digest.update(f"{name} {list(parameter.shape)} {parameter.dtype}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()


def processor_identity(processor: Any) -> str:
    """A hash that changes with a processor's settings, its tokenizer, its chat template and transformers' release."""
    tokenizer = processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = tokenizer.get_vocab() if backend is None else backend.to_str()
    settings = (processor.to_json_string(), processor.chat_template, vocabulary, transformers.__version__)
    return _digest(settings)


def _config(model: Any) -> str:
    """Without where the model was loaded from; with its kind of attention, which rounds in its own way."""
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    kinds = [getattr(part.config, "_attn_implementation", None) for part in model.modules() if hasattr(part, "config")]
    return json.dumps([config, sorted({str(kind) for kind in kinds})], sort_keys=True, default=str)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, all of it or nothing, with the hash of tensors and metadata among the latter.

    Raises:
        OSError: it could not be written; names the file.
    """
    on_disk = {name: tensor.cpu().clone() for name, tensor in tensors.items()}  # none shares memory with another
    said = {**(metadata or {}), "sha256": _digest_of_file(on_disk, metadata or {})}
    with output_file(path) as temporary:
        # not save_file, whose files are for their owner alone
        temporary.write_bytes(save(on_disk, metadata=said))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What :func:`write_tensors` wrote: tensors and metadata.

    The file is opened once. safetensors' own ``safe_open`` looks for it twice, by name, and fails with a RuntimeError
    where another process deletes it in between.

    Raises:
        SafetensorError, ScoreError: it is damaged.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    tensors = load(content)
    length = int.from_bytes(content[:8], "little")  # of the header, which load() has checked
    metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    if metadata.pop("sha256", None) != _digest_of_file(tensors, metadata):
        raise ScoreError("its content is not what was written")
    return tensors, metadata


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest_of_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode() if metadata else b"")
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
