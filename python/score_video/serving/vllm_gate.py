"""What is chosen of a video before vLLM's vision tower, from the pixels of its processor, and what the tower makes of
it (docs/before_the_tower.md)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.utils.torch_utils import async_tensor_h2d

from score_ext.budget import keep_count
from score_video import thumbnails
from score_video.before_tower import Gate, Seen, fill_sources, filled, with_halo
from score_video.compressor import AdaptiveRetention, Compressor
from score_video.errors import ScoreError
from score_video.packed import PackedVideos, Selection
from score_video.serving.setting import VARIABLE
from score_video.serving.vllm_tower import METADATA, run_part

Grid = tuple[int, int, int]


class Partial(NamedTuple):
    """A video of L tokens of which a tower has seen some.

    Attributes:
        rows: [K, D * (1 + levels)], what it made of those that the gate kept, without the halo.
        sources: int64 [L], :func:`score_video.before_tower.fill_sources`.
        seen: the gate's choice, and what of the video the tower ran on.
    """

    rows: Tensor
    sources: Tensor
    seen: Seen

    def dense(self, width: int | None) -> Tensor:
        """[L, width]: the first columns of all tokens, or all of them; what was not seen is filled in."""
        return filled(self.rows[:, :width].contiguous(), self.sources)

    def rows_of(self, index: Tensor) -> Tensor:
        """Rows of tokens int64 [k] that the gate kept, with all their columns."""
        return self.rows.index_select(0, torch.searchsorted(self.seen.kept.index, index))


def check_gate(gate: Gate, architecture: str, tower: Any, vllm_config: Any, rate: float) -> None:
    """Sees, before there are weights, that the gate can work in this engine.

    Args:
        tower: the model's vision tower; None where it has none of that name.
        rate: ``--video-pruning-rate``.

    Raises:
        ScoreError: it cannot; says why.
    """
    name = type(tower).__name__
    if name not in METADATA:
        raise ScoreError(
            f"{VARIABLE}: before_tower must be None for {architecture}: of vLLM's vision towers "
            f"{', '.join(METADATA)} can be run on a part of a video, this model has another"
        )
    if vllm_config.model_config.multimodal_config.mm_encoder_tp_mode == "data":
        raise ScoreError(
            f"{VARIABLE}: before_tower must be None with --mm-encoder-tp-mode data, which shares videos out among "
            "GPUs whole; leave the mode at weights"
        )
    if vllm_config.compilation_config.cudagraph_mm_encoder:
        raise ScoreError(
            f"{VARIABLE}: before_tower must be None with cudagraph_mm_encoder, whose graphs are of whole videos"
        )
    retention = _retention(gate)
    if retention < 1 - rate - 1e-9:  # 1 - 0.7 is a little more than 0.3
        raise ScoreError(
            f"{VARIABLE}: before_tower.retention must be at least what --video-pruning-rate {rate:g} leaves, "
            f"{1 - rate:g}, or there is not so much to choose from: got {retention:g}"
        )


def choose(gate: Gate, pixels: Tensor, grid: Grid, side: int, least: int) -> Tensor:
    """The gate's choice of one video's tokens, int64 [k] ascending, on the device of its pixels.

    It keeps what its retention says, as in transformers, but ``least`` tokens at the least: the engine's count of a
    short video can be more, because a formula of vLLM's never goes below a whole frame.

    Args:
        pixels: [patches, numbers of a patch], bytes or normalised; the patches of each token stand together.
        grid: frames, rows and columns of tokens.
        side: of a patch, in pixels.
        least: how many tokens the engine has counted.
    """
    frames, rows, columns = grid
    patches = torch.arange(len(pixels), device=pixels.device).view(frames * rows * columns, -1)
    pictures = thumbnails.of_tokens(pixels, side, patches, [grid])
    count = max(keep_count(frames, rows * columns, _retention(gate)), least)
    return gate.selector.select(pictures, keep=[count]).index


def encode(tower: Any, pixels: Tensor, grid: Grid, halo: int, index: Tensor, on_host: Tensor) -> Partial:
    """Runs the tower on what the gate chose of one video and its halo. Does not wait for the device.

    Args:
        pixels: as for :func:`choose`.
        grid: frames, rows and columns of patches.
        halo: ``Gate.halo``.
        index, on_host: what :func:`choose` returned, and the same on the host.
    """
    merge = tower.spatial_merge_size
    tokens = (grid[0], grid[1] // merge, grid[2] // merge)
    encoded, sources = around(tokens, on_host, halo)
    rows = run_part(tower, pixels, grid, encoded)
    if halo:
        rows = rows.index_select(0, async_tensor_h2d(torch.searchsorted(encoded, on_host), pixels.device))
    count = len(on_host)
    keep = async_tensor_h2d(torch.tensor([count], dtype=torch.int32), pixels.device)
    seen = Seen(Selection(index, keep), async_tensor_h2d(encoded, pixels.device), (count,))
    return Partial(rows, async_tensor_h2d(sources, pixels.device), seen)


def around(grid: Grid, index: Tensor, halo: int) -> tuple[Tensor, Tensor]:
    """Of tokens that were chosen: what the tower sees with their halo, int64 [E], and what fills all others' places,
    int64 [L] (:func:`score_video.before_tower.fill_sources`). All of it on the host.

    Args:
        grid: frames, rows and columns of tokens.
        index: int64 [k] on the host, ascending.
        halo: ``Gate.halo``.
    """
    videos = PackedVideos.from_grids(torch.empty(math.prod(grid), 1, device="cpu"), [grid])  # nothing but places
    return with_halo(videos, index, halo), fill_sources(videos, index)


def _retention(gate: Gate) -> float:
    """Of an engine's compressor, which is of data: its gate is a compressor too, with a fraction."""
    assert isinstance(gate.selector, Compressor)
    retention = gate.selector.retention
    assert not isinstance(retention, AdaptiveRetention)
    return retention
