"""The policy's state "relative": features of a token that mean the same for every vision tower.

Only cosines, norms beside those of the same video, and standard scores: no coordinate of the token itself, so that a
policy trained on one tower can be used on another of any width. Nothing changes when all tokens of a video are scaled
or rotated. SCORE has no such state; this is ours. :mod:`score_video.policy.cosines` says which cosines and how.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from score_video.packed import PackedVideos
from score_video.policy.cosines import APPEARANCE, TEMPORAL, measure, runs
from score_video.policy.position import Places, token_places

TEMPORAL_WIDTH = 3 * len(TEMPORAL) + 4
"""Columns of the temporal part: each cosine as it is, as a score within the video, as a score within the frame; then
whether there is a frame 1, 2, 4 back and 1 ahead."""

APPEARANCE_WIDTH = 3 * len(APPEARANCE) + 1 + 2
"""Columns of the appearance part: cosines as in the temporal part; whether there is a neighbour; log |x| as a score
within the video and within the frame."""

_LEAST_DEVIATION = 1e-3  # of a cosine or a logarithm: what varies less than that gets scores near 0


@torch.no_grad()
def relative_state(videos: PackedVideos) -> Tensor:
    """The features: the temporal part, then the appearance part.

    A cosine to something that is not there (no frame before, no neighbour) is 0, its scores too, and the indicator
    column says so; the scores of a zero token's norm are 0 as well. A score is asinh((v - mean) / sqrt(var + 1e-6))
    over those tokens of the video, or of the frame, that have the quantity: a standard score near 0, a logarithm
    further out, where one flash in a still video would be hundreds of standard deviations away.

    Time is about 20 passes over the tokens. Memory beside the result is some 30 numbers a token and a few frames in
    float32. Waits for the device once, to know the videos' sizes. Not differentiable.

    Args:
        videos: L tokens; a video's features depend on that video alone.

    Returns:
        float32 [L, ``TEMPORAL_WIDTH + APPEARANCE_WIDTH``]; finite where the video's tokens are.

    Raises:
        TypeError, ValueError: as :func:`score_video.policy.position.token_places`.
    """
    places = token_places(videos)
    sizes = torch.stack([videos.lengths, videos.tokens_per_frame, videos.columns], dim=1).tolist()
    zeros = partial(torch.zeros, dtype=torch.float32, device=videos.tokens.device)
    cosines, log_norm = zeros(len(videos.tokens), len(TEMPORAL) + len(APPEARANCE)), zeros(len(videos.tokens))
    for run in runs(sizes):
        rows = slice(run.begin, run.end)
        cosines[rows], log_norm[rows] = measure(videos.tokens[rows], run, places.row[rows], places.column[rows])
    exists = _exists(places)
    cosines = torch.where(exists, cosines, 0.0)

    frames = [length // per_frame if length else 0 for length, per_frame, _ in sizes]
    first_frame = torch.tensor([0, *frames], device=places.video.device).cumsum(0)
    groups = (places.video, len(sizes)), (first_frame[places.video] + places.frame, sum(frames))
    cosine_scores = [_scores(cosines, exists, *group) for group in groups]
    norm_scores = [_scores(log_norm[:, None], log_norm[:, None] != -torch.inf, *group) for group in groups]

    split = len(TEMPORAL)
    temporal = [part[:, :split] for part in (cosines, *cosine_scores)]
    temporal.append(exists[:, [0, 1, 2, 4]].float())
    appearance = [part[:, split:] for part in (cosines, *cosine_scores)]
    appearance += [exists[:, split, None].float(), *norm_scores]
    return torch.cat([*temporal, *appearance], dim=1)


def _exists(places: Places) -> Tensor:
    """bool [L, 12]: whether there is what each cosine of a token is to, in the order of TEMPORAL and APPEARANCE."""
    back_1, back_2, back_4 = (places.frame >= n for n in (1, 2, 4))
    ahead = places.frame < places.frames - 1
    near = places.rows * places.columns > 1
    always = torch.ones_like(ahead)
    temporal = [back_1, back_2, back_4, back_1, ahead, ahead, back_1]
    return torch.stack([*temporal, near, near, always, always, always], dim=1)


def _scores(values: Tensor, exists: Tensor, group: Tensor, groups: int) -> Tensor:
    """asinh of the standard scores of values [L, C] within each group of rows [L], over those that exist; else 0."""

    def total(of: Tensor) -> Tensor:  # [groups, C] float64: sums of tens of thousands
        return torch.zeros(groups, of.shape[1], dtype=torch.float64, device=of.device).index_add_(0, group, of)

    count = total(exists.double()).clamp_min(1)
    mean = total(torch.where(exists, values.double(), 0.0)) / count
    deviation = torch.where(exists, values.double() - mean[group], 0.0)
    variance = total(deviation.square()) / count
    return (deviation / (variance + _LEAST_DEVIATION**2).sqrt()[group]).asinh().float()
