"""vLLM's vision towers, run on a part of a video's tokens: its own modules, called by its own door.

The towers of Qwen2.5-VL and Qwen3-VL compute all that depends on the grid in ``prepare_encoder_metadata``, and take it
as ``encoder_metadata`` instead from whoever has it already, as vLLM's CUDA graphs do. Here it is made for some of a
video's tokens: positions are looked up in what the tower's own functions make for one whole frame, and a frame or a
window of attention ends where its last token that is there does. What comes out is what the stock tower makes of these
patches if all others are masked out of its attention. vLLM takes the ends of segments from the host
(``MMEncoderAttention``), so what is encoded must be known there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention
from vllm.utils.torch_utils import async_tensor_h2d

Integers = NDArray[np.int64]


def run_part(tower: Any, pixels: Tensor, grid: tuple[int, int, int], encoded: Tensor) -> Tensor:
    """What a tower makes of some tokens of a video, without waiting for the device.

    Args:
        tower: one of :data:`METADATA`.
        pixels: [patches, numbers of a patch], the whole video, in the order of vLLM's processor: the patches of each
            token stand together.
        grid: frames, and rows and columns of patches.
        encoded: int64 [E] on the host, ascending, E > 0: the tokens that it sees.

    Returns:
        [E, D * (1 + levels)], as vLLM's own: features, and for Qwen3-VL those for the language model's first layers.
    """
    seen = _of_tokens(pixels, async_tensor_h2d(encoded, pixels.device), tower.spatial_merge_unit)
    metadata = METADATA[type(tower).__name__](tower, grid, encoded.numpy(), pixels.device)
    rows: Tensor = tower(seen, None, encoder_metadata=metadata)
    return rows


def _windowed(tower: Any, grid: tuple[int, int, int], encoded: Integers, device: torch.device) -> dict[str, Any]:
    """For Qwen2.5-VL's, most of whose layers see windows: tokens stand window by window in it, frame by frame.

    Args:
        grid: frames, and rows and columns of patches.
        encoded: [E], ascending, of the tokens of the whole video.
        device: of what is looked up; ends and the largest size stay where vLLM has them.
    """
    _, rows, columns = grid
    unit = tower.spatial_merge_unit
    # of one frame: [N * unit, D] window by window; which token stands where, [N]; the patches up to each window's end
    cosines, sines, order, window_ends, _ = tower.get_rope_by_thw(1, rows, columns)
    frame, token = np.divmod(encoded, len(order))
    place = np.argsort(order.numpy())[token]  # in its frame, by windows
    by_window = np.argsort(frame * len(order) + place)
    frame, place = frame[by_window], place[by_window]
    window = np.searchsorted(window_ends.numpy(), place * unit, side="right")
    places = async_tensor_h2d(place, device)
    stands = torch.from_numpy(by_window)
    full = _attention(tower, frame, device)
    windows = _attention(tower, frame * len(window_ends) + window, device)
    return {
        "rotary_pos_emb_cos": _of_tokens(cosines, places, unit),
        "rotary_pos_emb_sin": _of_tokens(sines, places, unit),
        "window_index": async_tensor_h2d(stands, device),
        "reverse_indices": async_tensor_h2d(tower.invert_permutation(stands), device),
        "cu_seqlens": full[0],
        "cu_window_seqlens": windows[0],
        "max_seqlen_full": full[1],
        "max_seqlen_window": windows[1],
        "sequence_lengths_full": full[2],
        "sequence_lengths_window": windows[2],
    }


def _plain(tower: Any, grid: tuple[int, int, int], encoded: Integers, device: torch.device) -> dict[str, Any]:
    """For Qwen3-VL's, all of whose layers see whole frames. Arguments as :func:`_windowed`."""
    _, rows, columns = grid
    unit = tower.spatial_merge_unit
    frame, token = np.divmod(encoded, rows * columns // unit)
    places = async_tensor_h2d(token, device)
    one_frame = [[1, rows, columns]]
    cosines, sines = tower.rot_pos_emb(one_frame)
    ends, longest, lengths = _attention(tower, frame, device)
    return {
        "pos_embeds": _of_tokens(tower.fast_pos_embed_interpolate(one_frame), places, unit),
        "rotary_pos_emb_cos": _of_tokens(cosines, places, unit),
        "rotary_pos_emb_sin": _of_tokens(sines, places, unit),
        "cu_seqlens": ends,
        "max_seqlen": longest,
        "sequence_lengths": lengths,
    }


METADATA: dict[str, Callable[[Any, tuple[int, int, int], Integers, torch.device], dict[str, Any]]] = {
    "Qwen2_5_VisionTransformer": _windowed,
    "Qwen3_VisionTransformer": _plain,
}
"""The towers that can be run in part, by their classes -> what makes their ``encoder_metadata``."""


def _of_tokens(of_patches: Tensor, tokens: Tensor, unit: int) -> Tensor:
    """[N * unit, D] of all patches -> [E * unit, D], those of tokens int64 [E]."""
    return of_patches.reshape(-1, unit, of_patches.shape[1]).index_select(0, tokens).flatten(0, 1)


def _attention(tower: Any, segment: Integers, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Ends of segments, their largest size (on the host) and their sizes, as the tower's kernel of attention has them.

    Args:
        segment: [E], ascending, the segment of each token. Those without tokens are left out.
    """
    _, sizes = np.unique(segment, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(sizes * tower.spatial_merge_unit)]).astype(np.int32)
    kernel = tower.attn_backend
    return (
        MMEncoderAttention.maybe_recompute_cu_seqlens(
            kernel,
            ends,
            tower.hidden_size,
            tower.tp_size,
            device,
            fp8_padded_hidden_size=tower.fp8_padded_hidden_size,
        ),
        torch.tensor(MMEncoderAttention.compute_max_seqlen(kernel, ends), dtype=torch.int32),
        MMEncoderAttention.maybe_compute_seq_lens(kernel, ends, device),
    )
