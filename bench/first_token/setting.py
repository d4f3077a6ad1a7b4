"""What is measured: a clip, a model of random weights with a processor, and the ways to the first token."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import torch
from transformers import AutoModelForImageTextToText

from bench.prefill.geometry import QUARTER, QUICK, REAL, Geometry
from score_video.compressor import Compressor
from score_video.mllm.load import load_processor
from score_video.testing import save_tiny_model
from score_video.video.synthetic import FPS, render

QUESTION = "What happens in this video?"
RETENTION = 0.1
STOCK = "transformers"


@dataclass(frozen=True)
class Setting:
    """How large everything is.

    Attributes:
        geometry: the model's shapes.
        size: height and width of the clip, in pixels.
        seconds: of the clip.
        frames: sampled of it.
        tokens_per_frame: that the processor makes of two frames at most.
        longer: frames and tokens of two frames, for what becomes of more frames before the tower.
        dtype: of the model.
        repeats: how often each way is measured, in turn.
    """

    geometry: Geometry
    size: tuple[int, int]
    seconds: int
    frames: int
    tokens_per_frame: int
    longer: tuple[int, int]
    dtype: torch.dtype
    repeats: int


def setting_of(device: torch.device, quick: bool) -> Setting:
    """For a machine; ``quick``: everything once and tiny."""
    if quick:
        return Setting(QUICK[0], (96, 128), 1, 8, 12, (12, 12), torch.float32, 1)
    geometry = QUARTER if device.type == "cpu" else REAL[0]
    # 33 frames of 12 x 21 tokens, 56 of 20 x 36
    return Setting(geometry, (720, 1280), 24, 66, 256, (112, 730), torch.bfloat16, 5)


@dataclass(frozen=True)
class Way:
    """From the frames to the first token.

    Attributes:
        name: as in tables.
        compressor: what ``score ask`` is told; None: transformers alone.
    """

    name: str
    compressor: Compressor | None = None


def ways() -> tuple[Way, ...]:
    """The stock model first."""
    scattered = Compressor("evs-dithered", 0.3), Compressor("evs-dithered", RETENTION)
    return (
        Way(STOCK),
        Way("after the tower", Compressor(retention=RETENTION)),
        Way("30% before it", Compressor("divprune", RETENTION, before_tower=scattered[0])),
        Way("30% before it, halo 1", Compressor("divprune", RETENTION, before_tower=scattered[0], halo=1)),
        Way("10% before it", Compressor("divprune", RETENTION, before_tower=scattered[1])),
        Way("10% before it, halo 1", Compressor("divprune", RETENTION, before_tower=scattered[1], halo=1)),
    )


def write_clip(path: Path, setting: Setting) -> None:
    """The package's drawn clip, scaled to the setting's size and shown again until it is long enough: H.264, 25 fps."""
    height, width = setting.size
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        drawn = [
            av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                width, height, "yuv420p", interpolation="BICUBIC"
            )
            for pixels in render()
        ]
        for number, frame in zip(range(setting.seconds * FPS), itertools.cycle(drawn), strict=False):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_processor(geometry: Geometry, tokens_per_frame: int) -> Any:
    """A Qwen2.5-VL's, of a tokenizer trained on the spot; frames become about so many tokens at most."""
    with tempfile.TemporaryDirectory() as folder:
        save_tiny_model(Path(folder), "qwen2_5_vl", tokens_per_frame=tokens_per_frame)
        processor = load_processor(folder)
    side = geometry.vision["patch_size"]
    area = (side * processor.video_processor.merge_size) ** 2
    processor.video_processor.patch_size = side
    processor.video_processor.size = {"shortest_edge": 4 * area, "longest_edge": tokens_per_frame * area}
    return processor


def make_model(setting: Setting, processor: Any, device: torch.device) -> Any:
    """Of the setting's geometry, with the processor's ids; random weights of seed 0."""
    config: Any = setting.geometry.config()
    for role, token in _TOKENS.items():
        setattr(config, f"{role}_token_id", processor.tokenizer.convert_tokens_to_ids(token))
    config.get_text_config().vocab_size = max(config.get_text_config().vocab_size, len(processor.tokenizer))
    torch.manual_seed(0)
    with device:
        model = AutoModelForImageTextToText.from_config(config, dtype=setting.dtype, attn_implementation="sdpa")
    model.generation_config.update(do_sample=False, eos_token_id=None, pad_token_id=0)
    return model.eval().requires_grad_(False)


_TOKENS = {
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
}
