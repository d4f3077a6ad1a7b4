"""Where kept tokens stand in vLLM's prompts: their positions travel beside their embeddings, in columns of their own.

What is kept keeps the position that vLLM gives it in the whole prompt. vLLM 0.32 has this transport too, for its own
methods, but rounds positions to the embeddings' dtype (bfloat16 is exact up to 256), takes a prompt apart wrongly
where a chunk of it holds the end of one video and the beginning of another, and gives the text after a video other
positions than it has without pruning. Here positions are exact, whatever the dtype and the chunks.

A row of an item's embeddings (an image or a video) has a place: time, height and width counted from the item's first
position; its number in the item; and the item's ``lead``, how many of its rows come before its first placeholder.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch
from torch import Tensor

_PLACE = 5  # time, height, width, number, lead


def with_places(embeddings: Tensor, positions: Tensor, lead: Tensor | int = 0) -> Tensor:
    """Embeddings of an item, with their places in columns that :func:`split_places` takes off again.

    Args:
        embeddings: [n, D], of a floating dtype of two or four bytes.
        positions: int64 [n, 3], counted from the item's first one.
        lead: position of the item's first token in the prompt; a number or int64 [1].

    Returns:
        [n, D + columns] of the same dtype. The columns' bits are 32-bit integers: they may be moved, not computed with.
    """
    numbers = torch.arange(len(positions), device=positions.device)
    leads = lead.expand(len(positions)) if isinstance(lead, Tensor) else torch.full_like(numbers, lead)
    places = torch.cat([positions, numbers[:, None], leads[:, None]], dim=1).int()
    return torch.cat([embeddings, places.contiguous().view(embeddings.dtype)], dim=1)


def split_places(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`with_places` put together, or some rows of it: [m, D], and the places int64 [m, 5]."""
    columns = _PLACE * (4 // embeddings.element_size())
    width = embeddings.shape[1] - columns
    # a copy, because to be looked at as integers the columns must begin at an even place
    columns_alone = embeddings[:, width:].clone(memory_format=torch.contiguous_format)
    return embeddings[:, :width], columns_alone.view(torch.int32).long()


def grid_positions(frames: int, rows: int, columns: int, step: float = 1.0) -> Tensor:
    """int64 [frames * rows * columns, 3]: time, height, width from 0; a frame is ``step`` after the one before it,
    rounded down."""
    time = (torch.arange(frames, dtype=torch.float64) * step).long()
    return torch.cartesian_prod(time, torch.arange(rows), torch.arange(columns))


def place_rows(
    positions: Tensor, prompt: Sequence[int], pieces: Sequence[Tensor], computed: int, placeholders: Container[int]
) -> Tensor:
    """The prompt's positions with those of some items' rows filled in.

    Each item must stand after text or at the beginning of the prompt, which a ``vision_start`` token sees to.

    Args:
        positions: int64 [3, N]; right for text and images.
        prompt: N token ids.
        pieces: places int64 [m, 5] of consecutive items, in the prompt's order: all of an item, or (the first, the
            last) the part of it that lies in the chunk of the prompt that begins at ``computed``.
        computed: tokens of the prompt before this chunk.
        placeholders: ids of tokens that stand for images and videos.

    Returns:
        int64 [3, N], a copy.
    """
    positions, cursor = positions.clone(), computed
    for piece in pieces:
        if not len(piece):
            continue
        number, lead = piece[0, 3:].tolist()
        if number == 0:  # an item begins somewhere in this chunk: where its first placeholder tells
            cursor = next(i for i in range(cursor, len(prompt)) if prompt[i] in placeholders) - lead
        before = cursor - number - 1
        first = int(positions[:, before].max()) + 1 if before >= 0 else 0
        positions[:, cursor : cursor + len(piece)] = first + piece[:, :3].T.to(positions.device)
        cursor += len(piece)
    return positions
