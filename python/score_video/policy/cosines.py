"""Cosines of tokens to their neighbours in time and space and to means, in bounded memory: what the policy's state
"relative" is made of.

A token's direction is u = x / |x| (0 for a zero token). Plain cosines are between directions; centred ones are between
c = u - m, m the mean direction of the video: <a, b> / sqrt((|a|^2 + e)(|b|^2 + e)). Where a tower adds a large common
component to every token, plain cosines are all close to 1 and say little, centred ones still tell. Directions are
centred, not tokens, because a few tokens of huge norm, which many towers have, would own the mean of the tokens. e is
1e-6, the square of what rounding to bfloat16 does to a direction: what differs from the mean by no more than that has
cosine 0, not the cosine of its rounding errors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TEMPORAL = ("back_1", "back_2", "back_4", "back_best", "ahead_1", "ahead_best", "back_1_plain")
"""Cosines to other frames: centred, to the same place 1, 2 and 4 frames back; to the best match among the 3x3 places
around it in the frame before (what has moved a little has one, what is new has none); both to the frame after (what is
about to vanish has none); and the plain cosine to the same place in the frame before, EVS's."""

APPEARANCE = ("near_mean", "near_best", "frame", "frame_plain", "video_plain")
"""Cosines within the frame and to means: mean and largest of the centred ones to the 4 neighbours; centred and plain to
the frame's mean direction; plain to the video's."""

_TINY = 1e-6  # e
_NONE = -2.0  # below every cosine

# Numbers, not bytes, that are worked on at a time. On the CPU the products of a block stay in its cache.
_CHUNK, _CPU_BLOCK = 1 << 22, 1 << 18


@dataclass(frozen=True)
class Run:
    """Consecutive videos of one frame size, none empty: rows begin .. end of the batch.

    In a run a neighbour in time or space is a fixed number of rows away, whichever the video.
    """

    begin: int
    end: int
    per_frame: int
    columns: int
    frames: list[int]  # of each video


def runs(sizes: Sequence[Sequence[int]]) -> Iterator[Run]:
    """The runs of a batch, from (length, tokens per frame, columns) of each video."""
    row = 0
    for (per_frame, columns), group in itertools.groupby((size for size in sizes if size[0]), key=lambda s: s[1:]):
        lengths = [size[0] for size in group]
        yield Run(row, row + sum(lengths), per_frame, columns, [length // per_frame for length in lengths])
        row += sum(lengths)


@dataclass(frozen=True)
class _Offset:
    """From a token to another one: so many frames back, rows down, columns right."""

    frames: int
    down: int
    right: int

    def rows_back(self, run: Run) -> int:
        return self.frames * run.per_frame - self.down * run.columns - self.right


_SAME_PLACE = {frames: _Offset(frames, 0, 0) for frames in (1, 2, 4)}
_AROUND = [_Offset(1, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
_NEAR = [_Offset(0, -1, 0), _Offset(0, 0, -1)]  # the other two neighbours are these, seen from there


def measure(tokens: Tensor, run: Run, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """The cosines ``TEMPORAL + APPEARANCE`` and log-norms of a run's tokens.

    Args:
        tokens: [n, D] float32, float16 or bfloat16, the run's rows.
        run: the sizes of the videos in this run.
        row, column: of each token in its frame, int64 [n] each.

    Returns:
        cosines float32 [n, 12], meaningless where there is nothing to compare with (no such frame, no neighbour);
        log |x| float32 [n], -inf for a zero token.
    """
    products = _products(tokens, run)
    back, ahead = {}, {}  # [n] for each offset: cosine to the token there, and to the one that sees this one there
    for offset, cosine in products.cosine.items():
        there_row, there_column = row + offset.down, column + offset.right
        inside = (there_row >= 0) & (there_row < run.per_frame // run.columns)
        inside &= (there_column >= 0) & (there_column < run.columns)
        back[offset] = torch.where(inside, cosine, _NONE)
        ahead[offset] = back[offset].roll(-offset.rows_back(run))

    def best(cosines: dict[_Offset, Tensor]) -> Tensor:
        return torch.stack([cosines[offset] for offset in _AROUND if offset in cosines]).amax(0)

    # <u, v> = <c, d> + <u, m> + <v, m> - |m|^2 with v the token one frame back, d its centred direction
    root, along = products.root, products.along
    plain = back[_SAME_PLACE[1]] * root * root.roll(run.per_frame) + along + along.roll(run.per_frame)
    plain = plain - products.squared_mean

    # plain where there is no neighbour at all: something to stack
    near = torch.stack([cosine[offset] for cosine in (back, ahead) for offset in _NEAR if offset in cosine] or [plain])
    there = near != _NONE
    near_mean = torch.where(there, near, 0.0).sum(0) / there.sum(0).clamp_min(1)
    temporal = [back[offset] for offset in _SAME_PLACE.values()]
    temporal += [best(back), ahead[_SAME_PLACE[1]], best(ahead), plain]
    return torch.stack([*temporal, near_mean, near.amax(0), *products.to_means], dim=1), products.log_norm


@dataclass(frozen=True)
class _Products:
    """What is left of a run's tokens once their directions are gone: float32 [n] each, if not said otherwise."""

    cosine: dict[_Offset, Tensor]  # centred, to the token so many rows back: of another video or place, if need be
    log_norm: Tensor  # log |x|
    root: Tensor  # sqrt(|c|^2 + e)
    along: Tensor  # <u, m>
    squared_mean: Tensor  # |m|^2
    to_means: list[Tensor]  # the cosines frame, frame_plain, video_plain


def _products(tokens: Tensor, run: Run) -> _Products:
    """Goes twice through the tokens, a few frames at a time: for the means, then for everything else."""
    n, width, device = run.per_frame, tokens.shape[1], tokens.device
    frames = sum(run.frames)
    rows, columns = n // run.columns, run.columns
    offsets = [*_SAME_PLACE.values(), *_AROUND, *_NEAR]
    # a frame of one row has no other rows, one of one column no other columns; there fewer rows back would be none
    offsets = [o for o in dict.fromkeys(offsets) if (rows > 1 or not o.down) and (columns > 1 or not o.right)]
    video_frames = torch.tensor(run.frames, device=device)
    video = torch.arange(len(run.frames), device=device).repeat_interleave(video_frames, output_size=frames)

    halo = n * max(offset.frames for offset in offsets)  # rows before the chunk's first
    step = min(frames, max(1, _CHUNK // max(n * width, 1)))  # frames at a time
    chunks = [slice(begin * n, min(begin + step, frames) * n) for begin in range(0, frames, step)]
    buffer = torch.zeros(halo + step * n, width, dtype=torch.float32, device=device)

    log_norm = torch.empty(len(tokens), dtype=torch.float32, device=device)
    total = torch.zeros(len(run.frames), width, dtype=torch.float64, device=device)
    for chunk in chunks:
        units = buffer[halo : halo + chunk.stop - chunk.start]
        log_norm[chunk] = directions(tokens[chunk], units)
        total.index_add_(0, video[chunk.start // n : chunk.stop // n], units.view(-1, n, width).sum(1).double())
    mean = (total / (video_frames[:, None] * n)).float()  # [videos, D]

    cosine = torch.empty(len(offsets), len(tokens), dtype=torch.float32, device=device)
    sums = torch.empty(len(tokens), 5, dtype=torch.float32, device=device)
    for chunk in chunks:
        end = halo + chunk.stop - chunk.start
        directions(tokens[chunk], buffer[halo:end])
        centre = mean[video[chunk.start // n : chunk.stop // n]]
        sums[chunk] = _centre(buffer[halo:end].view(-1, n, width), centre).view(-1, 5)
        for k, offset in enumerate(offsets):
            back = offset.rows_back(run)
            cosine[k, chunk] = _dots(buffer[halo:end], buffer[halo - back : end - back])
        buffer[:halo] = buffer[end - halo : end].clone()
    root, along, *to_means = sums.unbind(1)
    squared_mean = mean.square().sum(1)[video].repeat_interleave(n)
    return _Products(dict(zip(offsets, cosine, strict=True)), log_norm, root, along, squared_mean, to_means)


def directions(tokens: Tensor, out: Tensor) -> Tensor:
    """Writes x / |x| of tokens [R, D] to float32 out [R, D], 0 for a zero token; returns log |x| [R]. Right for every
    finite token, also where its squares are no floats."""
    largest: Tensor = torch.linalg.vector_norm(tokens, torch.inf, dim=1, keepdim=True).float()
    torch.div(tokens, largest.where(largest > 0, 1.0), out=out)
    norm: Tensor = torch.linalg.vector_norm(out, dim=1, keepdim=True)
    out /= norm.clamp_min(1)  # at least 1, unless it is 0
    return (largest.log() + norm.log()).squeeze(1)


def _centre(units: Tensor, mean: Tensor) -> Tensor:
    """Makes units [F, N, D] centred and of unit length, in place; mean [F, D] is that of each frame's video.

    Returns:
        [F, N, 5]: sqrt(|c|^2 + e), <u, m>, and the cosines ``frame``, ``frame_plain``, ``video_plain``.
    """

    def divisor(vectors: Tensor, dim: int) -> Tensor:
        squared: Tensor = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True).square()
        return (squared + _TINY).sqrt()

    frame_mean = units.mean(1)
    along = units @ mean[:, :, None]  # [F, N, 1]
    plain = units @ (frame_mean / divisor(frame_mean, 1))[:, :, None]
    units -= mean[:, None]
    root = divisor(units, 2)
    units /= root
    frame_centre = frame_mean - mean
    centred = units @ (frame_centre / divisor(frame_centre, 1))[:, :, None]
    return torch.cat([root, along, centred, plain, along / divisor(mean, 1)[:, None]], dim=2)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """<a_i, b_i> of [R, D] float32 each -> [R]."""
    block = max(1, (_CPU_BLOCK if a.device.type == "cpu" else _CHUNK) // a.shape[1])
    blocks = [slice(begin, begin + block) for begin in range(0, len(a), block)]
    return torch.cat([torch.linalg.vecdot(a[rows], b[rows]) for rows in blocks])
