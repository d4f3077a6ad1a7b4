"""Requests with videos that ``score embed`` compressed: what an engine is sent in the place of each.

For vLLM's server with ``--enable-mm-embeds`` and this package's plugin (docs/serving.md).
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.mllm.compressed_video import read_about, read_kept

ABOUT_BYTES = 1024
"""What is said of a video, as JSON, in as many bytes, filled up with zeros: so several go into one tensor."""

_SAID = ("video", "model", "model_type", "checkpoint_hash", "decides", "decider_hash")


def video_embeds(path: str | Path) -> dict[str, Tensor]:
    """What ``multi_modal_data={"video": ...}`` of ``LLM.generate`` takes for a compressed video.

    Args:
        path: a file that ``score embed`` wrote.

    Returns:
        ``video_embeds`` [K, D * (1 + levels)], ``video_grid_thw`` int64 [1, 3] of patches, ``score_index`` int64 [K],
        ``score_counts`` int64 [1], ``score_about`` uint8 [1, 1024], and ``second_per_grid_ts`` float32 [1] or
        ``timestamps`` float64 [1, T].

    Raises:
        ScoreError: it is no such file, is damaged, or of a family that no engine is sent so.
        OSError: it cannot be read.
    """
    about = read_about(path)
    tensors, seconds = read_kept(path)
    said = json.dumps({name: about.get(name) for name in _SAID}).encode()
    if None in (about.get("checkpoint_hash"), about.get("decider_hash")) or len(said) > ABOUT_BYTES:
        raise ScoreError(f"{path} must be written by score embed, which says what it was made of")
    if "others.video_grid_thw" not in tensors:
        raise ScoreError(f"{path} is of {about.get('model_type')}, whose compressed videos no engine takes")
    deepstack = [tensors[f"features.deepstack.{n}"] for n in range(sum("deepstack" in name for name in tensors))]
    grid = tensors["others.video_grid_thw"].long().reshape(1, 3)
    request = {
        "video_embeds": torch.cat([tensors["features.rows"], *deepstack], dim=1),
        "video_grid_thw": grid,
        "score_index": tensors["index"],
        "score_counts": torch.tensor([len(tensors["index"])]),
        "score_about": torch.tensor(list(said.ljust(ABOUT_BYTES, b"\0")), dtype=torch.uint8)[None],
    }
    if "others.second_per_grid_ts" in tensors:
        return {**request, "second_per_grid_ts": tensors["others.second_per_grid_ts"].reshape(1).float()}
    return {**request, "timestamps": _step_times(seconds)[None]}


def _step_times(seconds: Tensor) -> Tensor:
    """float64 [T]: when each step in time was, of which two frames are one; the last of them may stand for two.

    Processors are told of whole milliseconds, and write a step's time with one digit after the point. So here: with
    what a container's clock adds in its last bit (0.30000000000000004), halves were rounded to another digit.
    """
    milliseconds = (seconds.double() * 1000).round()
    milliseconds = torch.cat([milliseconds, milliseconds[-1:].expand(len(milliseconds) % 2)])
    return (milliseconds / 1000).view(-1, 2).mean(1)


def content_part(path: str | Path) -> dict[str, Any]:
    """The same as a part of a message's content, for the OpenAI API. Raises as :func:`video_embeds`."""
    encoded = {}
    for name, tensor in video_embeds(path).items():
        buffer = io.BytesIO()
        torch.save(tensor, buffer)
        encoded[name] = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "video_embeds", "video_embeds": encoded}
