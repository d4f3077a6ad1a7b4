"""From a video and a question to what a model's processor makes of them: frames, chat template, tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.mllm.adapter import find_adapter
from score_video.mllm.pixels import AS_BYTES, NORMALISATION, normalisation_of, with_floats
from score_video.video import SampledVideo, read_frames

_CLOCK = 1000  # ticks a second in which processors are told when frames were taken


@dataclass(frozen=True)
class Clip:
    """Frames of a video.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB, T at least 1.
        seconds: float64 [T], when each was taken, from 0.
        duration: seconds, of the whole video.
    """

    frames: Tensor
    seconds: Tensor
    duration: float


def read_clip(path: str | Path, num_frames: int, max_pixels: int, fps: float | None = None) -> Clip:
    """Samples a video file, :func:`score_video.video.read_frames`.

    Args:
        num_frames: how many, evenly spread; a video that has fewer gives those.
        max_pixels: larger frames are scaled down to at most so many, in their shape.
        fps: of a video that is so short that this makes fewer than ``num_frames``, so many a second, at least one.

    Raises:
        VideoError: it cannot be read; names the file.
    """

    def fit(height: int, width: int) -> tuple[int, int]:
        scale = min(1.0, math.sqrt(max_pixels / (height * width)))
        return max(1, int(height * scale)), max(1, int(width * scale))

    clip = clip_of_video(read_frames(path, fit, num_frames=num_frames))
    if fps is not None and (fewer := max(1, round(clip.duration * fps))) < len(clip.frames):
        clip = clip_of_video(read_frames(path, fit, num_frames=fewer))
    return clip


def clip_of_video(sampled: SampledVideo) -> Clip:
    """The frames that were read of a video file; shares their memory."""
    return Clip(torch.from_numpy(sampled.frames), torch.from_numpy(sampled.timestamps), sampled.source.duration)


def clip_of_frames(frames: Tensor, fps: float) -> Clip:
    """A clip of frames that were taken at equal intervals.

    Args:
        frames: uint8, or floats from 0 to 1, [T, H, W, 3].

    Raises:
        TypeError, ValueError: another dtype or shape; no frames.
    """
    if not isinstance(frames, Tensor) or not (frames.dtype == torch.uint8 or frames.is_floating_point()):
        raise TypeError(f"frames must be a tensor of uint8 or floats, got {getattr(frames, 'dtype', type(frames))}")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ScoreError(f"frames must be [frames, height, width, 3], none of them 0, got {list(frames.shape)}")
    if frames.is_floating_point():
        if not bool(((frames >= 0) & (frames <= 1)).all()):  # so that NaN fails too
            raise ScoreError(f"frames must have values from 0 to 1, got {frames.min():g} to {frames.max():g}")
        frames = (frames * 255).round().to(torch.uint8)
    return Clip(frames, torch.arange(len(frames), dtype=torch.float64, device="cpu") / fps, len(frames) / fps)


def chat_text(processor: Any, question: str) -> str:
    """The prompt with a placeholder for the video: the user shows it and asks; the model is to answer.

    Raises:
        ValueError: the processor has no chat template.
    """
    content = [{"type": "video"}, {"type": "text", "text": question}]
    if not processor.chat_template:
        raise ScoreError("processor must have a chat template, of a model that answers instructions")
    text: str = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return text


def chat_ids(processor: Any, text: str) -> Tensor:
    """int64 [S]: the tokens of :func:`chat_text`, the video's placeholder as it is."""
    ids = processor.tokenizer(text, add_special_tokens=_special_tokens_missing(processor, text))["input_ids"]
    return torch.tensor(ids, dtype=torch.int64, device="cpu")


def processor_inputs(
    processor: Any, clip: Clip, text: str, options: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Inputs of the model for one prompt with one video, all its frames taken.

    Args:
        text: the prompt, as :func:`chat_text` makes it.
        options: more arguments of the processor.

    Raises:
        ValueError: the processor refuses it, and why.
    """
    return batch_inputs(processor, [clip], [text], options)


def batch_inputs(
    processor: Any, clips: Sequence[Clip], texts: Sequence[str], options: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """:func:`processor_inputs` of several prompts with one video each, which begin alike; padded on the left."""
    return with_floats(_inputs_in_bytes(processor, clips, texts, options or {}))


def _inputs_in_bytes(
    processor: Any, clips: Sequence[Clip], texts: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """:func:`batch_inputs`; pixels as bytes where the processor can give these (:mod:`score_video.mllm.pixels`)."""
    normalisation = normalisation_of(processor, options)
    videos = [frames_for(processor, clip) for clip in clips]
    padding = {"padding": True, "padding_side": "left"} if len(texts) > 1 else {}
    try:
        inputs = processor(
            text=list(texts),
            # by prompt: SmolVLM's, before transformers 5.24, takes frames of a plain list for videos
            videos=[[frames] for frames in videos],
            video_metadata=[_metadata(clip, len(frames)) for clip, frames in zip(clips, videos, strict=True)],
            do_sample_frames=False,
            return_metadata=True,  # some processors forget to ask themselves for it
            add_special_tokens=_special_tokens_missing(processor, texts[0]),
            return_tensors="pt",
            **padding,
            **options,
            **({} if normalisation is None else AS_BYTES),
        )
    except ValueError as error:  # of a library whose words are about its own arguments
        raise ScoreError(f"the model's processor refuses the video: {' '.join(str(error).split())}") from error
    tensors = {name: torch.as_tensor(value) for name, value in inputs.items() if name != "video_metadata"}
    return tensors if normalisation is None else {**tensors, NORMALISATION: normalisation}


def _metadata(clip: Clip, num_frames: int) -> dict[str, Any]:
    """What a processor is told of a clip of which it gets so many frames, the last of them again where there are more
    than it has."""
    seconds = clip.seconds.tolist()
    seconds += seconds[-1:] * (num_frames - len(seconds))
    return {
        "total_num_frames": max(num_frames, round(clip.duration * _CLOCK)),
        "fps": _CLOCK,
        "frames_indices": [round(second * _CLOCK) for second in seconds],
        "duration": clip.duration,
        "height": clip.frames.shape[1],
        "width": clip.frames.shape[2],
    }


def model_inputs(model: Any, processor: Any, clip: Clip, text: str) -> dict[str, Tensor]:
    """:func:`processor_inputs` as the model's family wants them made, on the model's device; pixels in its dtype, times
    and numbers as they are.

    They are for :func:`score_video.mllm.encode_inputs` and what calls it (``compress_inputs``, a wrapped model), and
    not for the stock model: where the processor can give bytes, pixels are bytes, normalised by what needs them.

    Raises:
        ValueError: the processor refuses it, and why.
        TypeError: the model is not supported.
    """

    def placed(name: str, value: Tensor) -> Tensor:
        is_pixels = name.startswith("pixel_") and value.is_floating_point() and name != NORMALISATION
        return value.to(model.device, model.dtype if is_pixels else value.dtype)

    inputs = _inputs_in_bytes(processor, [clip], [text], find_adapter(model).processor_options)
    return {name: placed(name, value) for name, value in inputs.items()}


def frames_for(processor: Any, clip: Clip) -> Tensor:
    """A clip's frames as a processor takes them, uint8 [T, 3, H, W]; a view, which torch scales in half the time that
    one colour after the other takes.

    Where there are fewer than it makes one token of (two, in the Qwen and GLM families), the last is shown again, as
    those processors do with an odd one at the end.
    """
    least = getattr(getattr(processor, "video_processor", None), "temporal_patch_size", None) or 1
    frames = clip.frames
    if len(frames) < least:
        frames = torch.cat([frames, frames[-1:].expand(least - len(frames), -1, -1, -1)])
    return frames.permute(0, 3, 1, 2)


def _special_tokens_missing(processor: Any, text: str) -> bool:
    """Some templates write the token that begins a text, and it must not be there twice."""
    begin = processor.tokenizer.bos_token
    return not (begin and text.startswith(begin))
