"""EVS and VidCom2 as serving engines run them: plain torch on one video, in the dtype of its tokens.

Written from the papers' formulas, with the order of steps of vLLM's video pruning. Our methods of these names
(score_video/methods.py) compute the same scores on packed batches, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Scores = Callable[[Tensor], Tensor]
"""[T, N, D] -> what ``index`` chooses by; the part that torch.compile can make faster."""

_FIRST_FRAME = 255.0  # above any cosine distance


@dataclass(frozen=True)
class Baseline:
    """A rule in two steps.

    Attributes:
        name: as in tables.
        scores: its arithmetic.
        index: (scores, keep) -> int64 [keep], ascending rows of [T * N, D].
    """

    name: str
    scores: Scores
    index: Callable[[Tensor, int], Tensor]


def evs_scores(frames: Tensor) -> Tensor:
    """Cosine distance to the same place one frame before; the first frame is kept whole. [T, N, D] -> [T, N]."""
    distance = 1 - functional.cosine_similarity(frames[1:], frames[:-1], dim=-1)
    return torch.cat([torch.full_like(distance[:1], _FIRST_FRAME), distance])


def evs_index(scores: Tensor, keep: int) -> Tensor:
    """The ``keep`` largest of the whole video; among equal ones the earlier."""
    order = scores.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[:keep]] = True
    return mask.nonzero()[:, 0]


def vidcom2_scores(frames: Tensor) -> Tensor:
    """Typicality of each token within its video, and within its frame: [T, N, D] -> [2, T, N]."""
    width = max(1, frames.shape[2] // 2)
    channels = frames.flatten(0, 1).var(0, correction=0).topk(width, largest=False).indices
    chosen = functional.normalize(frames[..., channels], dim=-1)
    centres = chosen.mean((0, 1), keepdim=True), chosen.mean(1, keepdim=True)
    squares = torch.stack([(chosen - centre).square().sum(-1) for centre in centres])
    return torch.stack([torch.exp(-squares / (2 * 2.0**power)) for power in range(-3, 2)]).sum(0)


def vidcom2_index(scores: Tensor, keep: int) -> Tensor:
    """Of each frame the least typical, more of frames unlike the video; then to the exact count by typicality.

    vLLM goes through the frames one by one and waits for the device in each; ranks within all frames at once give the
    same tokens sooner.
    """
    to_video, to_frame = scores
    typicality = to_video + to_frame
    frames, per_frame = typicality.shape
    share = (-to_video.mean(1) / 0.01).softmax(0)
    budget = (keep / frames * (1 + share - share.mean())).round().clamp(1, per_frame)
    rank = typicality.argsort(dim=1, stable=True).argsort(dim=1)
    beyond = (rank >= budget[:, None]).flatten()
    # too many: the most typical of them go; too few: the least typical of the others come
    order = typicality.flatten().argsort(stable=True)
    order = order[beyond[order].byte().argsort(stable=True)]
    kept: Tensor = order[:keep].sort().values
    return kept


BASELINES = (Baseline("EVS", evs_scores, evs_index), Baseline("VidCom2", vidcom2_scores, vidcom2_index))
