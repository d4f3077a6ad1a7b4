"""The relative state in plain torch, float64 throughout: a part of :mod:`score_ext.reference`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_E = 1e-6  # the square of what rounding to bfloat16 does to a direction
_LEAST_VARIANCE = 1e-6
_TEMPORAL = 7  # of the 12 cosines
_AROUND = tuple(itertools.product((-1, 0, 1), (-1, 0, 1)))  # rows down, columns right
_NEAR = ((-1, 0), (1, 0), (0, -1), (0, 1))


def _moved(video: Tensor, frames: int, down: int, right: int, fill: float) -> Tensor:
    """video [T, R, C, ...] so that each place has what lies so far from it: ``fill`` where that is outside."""
    out = torch.full_like(video, fill)
    to, of = [], []
    for size, step in zip(video.shape, (frames, down, right), strict=False):
        to.append(slice(max(-step, 0), max(size - max(step, 0), 0)))
        of.append(slice(max(step, 0), max(size + min(step, 0), 0)))
    out[tuple(to)] = video[tuple(of)]
    return out


def _cosines(a: Tensor, b: Tensor, e_of_a: float = _E) -> Tensor:
    """<a, b> / sqrt((|a|^2 + e)(|b|^2 + e)) along the last dimension."""
    return (a * b).sum(-1) / ((a.square().sum(-1) + e_of_a) * (b.square().sum(-1) + _E)).sqrt()


def _measures(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Of one video [T, R, C, D], not empty: the measures [T, R, C, 13], and whether there are such."""
    frames, rows, columns, _ = tokens.shape
    norm = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    unit = tokens / torch.where(norm == 0, 1.0, norm)
    mean = unit.mean((0, 1, 2), keepdim=True)
    centred = unit - mean
    frame_mean = unit.mean((1, 2), keepdim=True)

    def to_place(steps: Sequence[tuple[int, int, int]]) -> Tensor:
        """[number of steps, T, R, C]: cosine to what lies so many frames, rows and columns away, -inf if nothing."""
        cosines = []
        for step in steps:
            there = _moved(torch.ones_like(norm[..., 0]), *step, 0.0) > 0
            cosine = _cosines(centred, _moved(centred, *step, 0.0))
            cosines.append(torch.where(there, cosine, -torch.inf))
        return torch.stack(cosines)

    near = to_place([(0, *step) for step in _NEAR])
    near_count = (near > -torch.inf).sum(0)
    measures = [
        *to_place([(-1, 0, 0), (-2, 0, 0), (-4, 0, 0)]),
        to_place([(-1, *step) for step in _AROUND]).amax(0),
        *to_place([(1, 0, 0)]),
        to_place([(1, *step) for step in _AROUND]).amax(0),
        (unit * _moved(unit, -1, 0, 0, 0.0)).sum(-1),
        torch.where(near > -torch.inf, near, 0.0).sum(0) / near_count.clamp_min(1),
        near.amax(0),
        _cosines(centred, frame_mean - mean),
        # a plain cosine is to a direction, of length 1 unless it is 0
        (unit * frame_mean).sum(-1) / (frame_mean.square().sum(-1) + _E).sqrt(),
        (unit * mean).sum(-1) / (mean.square().sum(-1) + _E).sqrt(),
        norm[..., 0].log(),
    ]
    back = torch.arange(frames, device=tokens.device)[:, None, None].expand(frames, rows, columns)
    back_1, ahead, always = back >= 1, back < frames - 1, torch.ones_like(back, dtype=torch.bool)
    exists = [back_1, back >= 2, back >= 4, back_1, ahead, ahead, back_1]
    exists += [near_count > 0, near_count > 0, always, always, always, norm[..., 0] != 0]
    there = torch.stack(exists, dim=-1)
    return torch.where(there, torch.stack(measures, dim=-1), 0.0), there


def _scores(values: Tensor, exists: Tensor, dims: tuple[int, ...]) -> Tensor:
    """asinh of the standard scores over ``dims``, of the values that exist; 0 for the others."""
    count = exists.sum(dims, keepdim=True).clamp_min(1)
    mean = torch.where(exists, values, 0.0).sum(dims, keepdim=True) / count
    deviation = torch.where(exists, values - mean, 0.0)
    variance = deviation.square().sum(dims, keepdim=True) / count
    return (deviation / (variance + _LEAST_VARIANCE).sqrt()).asinh()


def video_state(tokens: Tensor) -> Tensor:
    """[T, R, C, 43] of one video [T, R, C, D], not empty, in its dtype: in float32 too, for who wants to time that."""
    values, exists = _measures(tokens)
    parts = values, _scores(values, exists, (0, 1, 2)), _scores(values, exists, (1, 2))
    there = exists.to(values.dtype)
    temporal = [*(part[..., :_TEMPORAL] for part in parts), there[..., [0, 1, 2, 4]]]
    appearance = [*(part[..., _TEMPORAL:12] for part in parts), there[..., [_TEMPORAL]]]
    appearance += [part[..., [12]] for part in parts[1:]]
    return torch.cat([*temporal, *appearance], dim=-1)


def _video_position(tokens: Tensor) -> Tensor:
    """[T, R, C, 21] of one video [T, R, C, D] float64, not empty: t, y, x from 0 to 1, then their waves."""
    sizes = tokens.shape[:3]
    axes = [torch.arange(size, dtype=torch.float64, device=tokens.device) / max(size - 1, 1) for size in sizes]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    waves = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, device=tokens.device) * torch.pi
    angle = (place[..., None] * waves).flatten(-2)
    return torch.cat([place, angle.sin(), angle.cos()], dim=-1)


def _by_video(
    of_video: Callable[[Tensor], Tensor], tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, columns: Tensor
) -> Tensor:
    """What a function of one video [T, R, C, D] gives for each of them: float32 [L, any]."""
    results = []
    for video, (begin, end) in enumerate(itertools.pairwise(cu_seqlens.tolist())):
        per_frame, per_row = max(int(tokens_per_frame[video]), 1), max(int(columns[video]), 1)
        if end == begin:  # one frame, for the number of columns of nothing
            results.append(of_video(tokens.new_zeros(1, 1, 1, tokens.shape[1]).double()).flatten(0, 2)[:0])
            continue
        shape = (end - begin) // per_frame, per_frame // per_row, per_row, tokens.shape[1]
        results.append(of_video(tokens[begin:end].double().view(shape)).flatten(0, 2))
    return torch.cat(results).float()


@torch.no_grad()
def relative_state(
    tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, columns: Tensor, num_frames: int | None = None
) -> Tensor:
    """See :func:`score_ext.relative_state`."""
    return _by_video(video_state, tokens, cu_seqlens, tokens_per_frame, columns)


def relative_logits(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    columns: Tensor,
    num_frames: int | None,
    layers: Sequence[tuple[Tensor, Tensor]],
    features: Tensor | None = None,
    use_token: bool = True,
    use_residual: bool = True,
    use_position: bool = True,
) -> Tensor:
    """See :func:`score_ext.relative_logits`."""
    videos = cu_seqlens, tokens_per_frame, columns
    state = relative_state(tokens, *videos)
    split = 3 * _TEMPORAL + 4
    parts = [state[:, :split]] * use_residual + [state[:, split:]] * use_token
    if use_position:
        parts.append(_by_video(_video_position, tokens.detach(), *videos))
    if features is not None:
        parts.append(features)
    x = torch.cat(parts, dim=1).to(layers[0][0].dtype)
    for weight, bias in layers[:-1]:
        x = torch.nn.functional.gelu(torch.nn.functional.linear(x, weight, bias))
    return torch.nn.functional.linear(x, *layers[-1]).flatten().float()
