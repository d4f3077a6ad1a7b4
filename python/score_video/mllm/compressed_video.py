"""A video of which only the kept tokens are left: compressed once, asked many times, kept on disk between.

What decides sees no question, so what it keeps serves every question about the video.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

import score_ext
from score_video.errors import ScoreError
from score_video.mllm.compress import CompressedInputs, gate_of, select, shorten_prompts
from score_video.mllm.conversation import Clip, chat_ids, chat_text
from score_video.mllm.environment.encoded_video import EncodedVideo, encode_video
from score_video.mllm.environment.feature_cache import (
    model_identity,
    processor_identity,
    read_tensors,
    write_tensors,
)
from score_video.packed import Selector, needs_question
from score_video.progress import Phases
from score_video.provenance import versions

FORMAT = "score_video.compressed_video.1"
"""What a file says it is; to be raised when its content changes."""


@dataclass(frozen=True)
class CompressedVideo:
    """All that prompts need of a compressed video, for one model and processor.

    Attributes:
        encoded: the video with the rows [K, D] of its kept tokens alone.
        index: int64 [K], ascending: which of its L tokens they are.
        seconds: float64 [T], when the frames that were read were taken.
        about: by name what it was made of, as JSON has it: ``model``, ``model_type``, ``model_hash``,
            ``processor_hash``, ``versions``, and what the caller added.
    """

    encoded: EncodedVideo
    index: Tensor
    seconds: Tensor
    about: Mapping[str, Any]

    @property
    def num_tokens(self) -> int:
        """L, of the whole video."""
        return int(self.encoded.features.placeholders.sum())

    @property
    def grid(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the L tokens."""
        per_frame, columns = self.encoded.tokens_per_frame, self.encoded.columns
        return self.num_tokens // per_frame, per_frame // columns, columns

    def inputs(self, model: Any, processor: Any, question: str) -> CompressedInputs:
        """Arguments for ``model.generate(**inputs)``: a question about the video, as the processor writes it.

        Raises:
            ScoreError: the question is empty, or has a placeholder of its own.
        """
        return self.prompt(model, processor, question)[0]

    def prompt(self, model: Any, processor: Any, question: str) -> tuple[CompressedInputs, Tensor, int]:
        """The same; the shorter prompt's ids, int64 [1, W]; and how many of them come before the text behind the video.

        Raises:
            ScoreError: as :meth:`inputs`.
        """
        if not question.strip():
            raise ScoreError("question must not be empty")
        made = self.encoded.prompt(model, chat_ids(processor, chat_text(processor, question)))
        kept = ~made.features.placeholders
        kept[0, made.features.placeholders[0].nonzero()[:, 0][self.index]] = True
        arguments, before_use = shorten_prompts(model, made.adapter, made.prompt, kept, made.features, made.fixed)
        padding = arguments["attention_mask"].shape[1] - int(kept.sum())  # what FlashAttention may need
        ids = torch.nn.functional.pad(made.prompt.input_ids[kept][None], (padding, 0))
        before = padding + int(kept[:, : made.end_of_video].sum())
        return CompressedInputs(arguments, before_use=before_use, places=kept), ids, before

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, all of it or nothing; one that is there is replaced.

        Raises:
            OSError: it cannot be written; names the file.
        """
        tensors = {**self.encoded.tensors(), "index": self.index, "seconds": self.seconds}
        write_tensors(Path(path), tensors, {"format": FORMAT, "about": json.dumps(dict(self.about), sort_keys=True)})

    @staticmethod
    def load(path: str | Path, model: Any, processor: Any) -> CompressedVideo:
        """Reads a file of :meth:`save`, onto the model's device.

        Args:
            model, processor: those that it was made with, or the same again.

        Raises:
            ScoreError: it is no such file or damaged, or was made with another model or processor (names both).
            OSError: it cannot be read.
        """
        tensors, metadata = _read(path)
        try:
            about = json.loads(metadata["about"])
            made_with, release = _named(about), about["versions"]["transformers"]
            hash_of_model, hash_of_processor = about["model_hash"], about["processor_hash"]
            index, seconds = tensors.pop("index"), tensors.pop("seconds")
            encoded = EncodedVideo.from_tensors({name: tensor.to(model.device) for name, tensor in tensors.items()})
        except (KeyError, TypeError, ValueError) as error:
            raise ScoreError(f"{path} is no compressed video of this package: {error!r} in reading it") from None
        now = identity_of(model, processor)
        if hash_of_model != now["model_hash"]:
            raise ScoreError(
                f"{path} must be of the model it is asked with: it was made with {made_with}, "
                f"and this is {_named(now)}, of another configuration or other weights"
            )
        if hash_of_processor != now["processor_hash"]:
            raise ScoreError(
                f"{path} must be of the processor it is asked with: it was made with that of {made_with} under "
                f"transformers {release}, and this one has other settings, another "
                f"vocabulary or chat template, or is of transformers {now['versions']['transformers']}"
            )
        return CompressedVideo(encoded, index.to(model.device), seconds, about)


def read_about(path: str | Path) -> dict[str, Any]:
    """``about`` of a file of :meth:`CompressedVideo.save`, without a model to use it with.

    Raises:
        ScoreError: it is no such file, or damaged.
        OSError: it cannot be read.
    """
    _, metadata = _read(path)
    try:
        about: dict[str, Any] = json.loads(metadata["about"])
    except (KeyError, ValueError) as error:
        raise ScoreError(f"{path} is no compressed video of this package: {error!r} in reading it") from None
    return about


def read_kept(path: str | Path) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors of a file by name, as :meth:`EncodedVideo.tensors` has them, with "index"; and ``seconds``.

    Raises:
        ScoreError, OSError: as :func:`read_about`.
    """
    tensors, _ = _read(path)
    seconds = tensors.pop("seconds")
    return tensors, seconds


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file. Raises as :func:`read_about`."""
    try:
        tensors, metadata = read_tensors(Path(path))
    except FileNotFoundError:
        raise FileNotFoundError(2, "there is no such file", str(path)) from None
    except (SafetensorError, ScoreError) as error:
        raise ScoreError(f"{path} is no compressed video, or is damaged: {error}") from None
    if metadata.get("format") != FORMAT:
        raise ScoreError(f"{path} must be a compressed video ({FORMAT}), got {metadata.get('format')!r}")
    return tensors, metadata


@torch.no_grad()
def compress_video(
    model: Any,
    processor: Any,
    clip: Clip,
    selector: Selector,
    *,
    about: Mapping[str, Any] | None = None,
    phases: Phases | None = None,
) -> CompressedVideo:
    """Runs processor, vision tower and selector once.

    Args:
        model, processor: supported, as transformers loads them.
        clip: the video (:func:`score_video.mllm.conversation.read_clip`).
        selector: a :class:`score_video.Compressor`, or an object of your own; it may not look at the question.
        about: more to be known of it later, as JSON can hold it.
        phases: measures "vision tower", the processor's work in it, and "compression".

    Raises:
        ScoreError: the selector looks at the question, or what :func:`score_video.mllm.encode_inputs` refuses.
        TypeError: the model is not supported.
    """
    if needs_question(selector):
        raise ScoreError(
            "selector must not look at the question, or what it keeps is of use for that one alone: take a policy "
            "without question_width, or compress_inputs"
        )
    phases = phases or Phases()
    with phases("vision tower"):
        encoded = encode_video(model, processor, clip, gate_of(selector))
    with phases("compression"):
        selected = select(selector, encoded.packed(), encoded.seen, None)
        rows, *deepstack = (
            score_ext.gather(part, selected.index) for part in (encoded.features.rows, *encoded.features.deepstack)
        )
        features = replace(encoded.features, rows=rows, deepstack=tuple(deepstack))
    identity = identity_of(model, processor)
    return CompressedVideo(
        replace(encoded, features=features), selected.index, clip.seconds, {**(about or {}), **identity}
    )


def identity_of(model: Any, processor: Any) -> dict[str, Any]:
    """What :attr:`CompressedVideo.about` says of a model and its processor: names, hashes and versions."""
    return {
        "model": str(getattr(model.config, "_name_or_path", "") or "a model without a name"),
        "model_type": model.config.model_type,
        "model_hash": model_identity(model),
        "processor_hash": processor_identity(processor),
        "versions": versions("torch", "transformers"),
    }


def _named(about: Mapping[str, Any]) -> str:
    return f"{about['model']} ({about['model_type']}, {about['model_hash'][:12]})"
