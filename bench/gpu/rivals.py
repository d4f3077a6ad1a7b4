"""What the ops are compared with: the same in plain torch, and how two results must agree."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FRAMES, PER_FRAME, WIDTH = 64, 625, 3584
LENGTH = FRAMES * PER_FRAME
KEEP = LENGTH // 10
SAMPLES = 8


def surprise(tokens: Tensor) -> Tensor:
    """With torch's own cosine_similarity, as most code writes it."""
    video = tokens.view(FRAMES, PER_FRAME, WIDTH)
    similarity = torch.nn.functional.cosine_similarity(video[1:].float(), video[:-1].float(), dim=-1)
    return torch.cat([similarity.new_full((1, PER_FRAME), math.inf), 1 - similarity]).view(-1)


def surprise_sums(tokens: Tensor) -> Tensor:
    """The same from three sums, each norm only once: easier to fuse."""
    video = tokens.view(FRAMES, PER_FRAME, WIDTH).float()
    products = (video[1:] * video[:-1]).sum(-1)
    squares = video.square().sum(-1)
    similarity = products / (squares[1:] * squares[:-1]).sqrt()
    return torch.cat([similarity.new_full((1, PER_FRAME), math.inf), 1 - similarity]).view(-1)


def select(scores: Tensor) -> Tensor:
    """Rows of the largest tenth, ascending."""
    return scores.topk(len(scores) // 10, sorted=False).indices.sort().values


def divprune(tokens: Tensor) -> Tensor:
    """A tenth of the tokens by farthest-first traversal, ascending."""
    units = torch.nn.functional.normalize(tokens.float(), dim=1)
    latest = (units @ units.mean(0)).argmin()
    nearest = torch.full((len(units),), torch.inf, device=tokens.device)
    taken = [latest]
    for _ in range(len(tokens) // 10 - 1):
        nearest = torch.minimum(nearest, 1 - units @ units.index_select(0, latest[None])[0])
        nearest = nearest.index_fill(0, latest[None], -torch.inf)
        latest = nearest.argmax()
        taken.append(latest)
    return torch.stack(taken).sort().values


def thumbnails(pixels: Tensor) -> Tensor:
    """Means of 2 x 2 cells of pictures [N, C, F, H, W], over their frames too."""
    return torch.nn.functional.adaptive_avg_pool2d(pixels.mean(2), 2)


def count_sketch(tokens: Tensor, signs: Tensor) -> Tensor:
    """128 columns of a multiple, by a sum over a view."""
    return (tokens.float() * signs).view(len(tokens), -1, 128).sum(1)


def gumbel_topk(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Gumbel top-k, SAMPLES times."""
    gumbel = -torch.log(torch.empty(SAMPLES, len(logits), device=logits.device).exponential_())
    order = (logits + gumbel).topk(len(logits) // 10).indices
    return order.sort().values, order


def sample_bernoulli(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A mask, its log-probability and its count, SAMPLES times."""
    mask = torch.rand(SAMPLES, len(logits), device=logits.device) < logits.sigmoid()
    log_prob = torch.nn.functional.logsigmoid(torch.where(mask, logits, -logits)).sum(1)
    return mask, log_prob, mask.sum(1)


def cosines(video: Tensor) -> Tensor:
    """The twelve cosines of the relative state for one video [T, R, C, D] -> [T * R * C, 12], without the scores that
    the state has beside them; no frame and no row or column of one."""
    units = torch.nn.functional.normalize(video.float(), dim=-1)
    mean, frame_mean = units.mean((0, 1, 2)), units.mean((1, 2))
    centred = units - mean
    flat = centred / (centred.square().sum(-1, keepdim=True) + 1e-6).sqrt()

    def with_frame_back(frames: int, down: int = 0, right: int = 0) -> Tensor:
        """Cosine to the place so far down and right in a frame before; -2 where there is none."""
        there = flat.roll((frames, -down, -right), (0, 1, 2))
        cosine = (flat * there).sum(-1)
        if frames:
            cosine[:frames] = -2
        if down:
            cosine[:, -1 if down > 0 else 0] = -2
        if right:
            cosine[:, :, -1 if right > 0 else 0] = -2
        return cosine

    def ahead(back: Tensor, down: int, right: int) -> Tensor:
        """The same numbers, seen from the other end."""
        return back.roll((-1, down, right), (0, 1, 2))

    around = {(down, right): with_frame_back(1, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
    back = torch.stack(list(around.values()))
    front = torch.stack([ahead(cosine, *offset) for offset, cosine in around.items()])
    plain = (units[1:] * units[:-1]).sum(-1)
    up, left = with_frame_back(0, -1), with_frame_back(0, 0, -1)
    near = torch.stack([up, left, up.roll(-1, 1), left.roll(-1, 2)])
    there = near > -2
    to_frame, to_frame_plain = (
        (vectors * (other / (other.square().sum(-1, keepdim=True) + 1e-6).sqrt())[:, None, None]).sum(-1)
        for vectors, other in ((flat, frame_mean - mean), (units, frame_mean))
    )
    found = [
        around[0, 0], with_frame_back(2), with_frame_back(4), back.amax(0), front[4], front.amax(0),
        torch.cat([torch.zeros_like(plain[:1]), plain]),
        torch.where(there, near, 0).sum(0) / there.sum(0), near.amax(0), to_frame, to_frame_plain,
        units @ (mean / (mean.square().sum() + 1e-6).sqrt()),
    ]  # fmt: skip
    found = [torch.where(cosine == -2, 0, cosine) for cosine in found]
    return torch.stack(found, dim=-1).flatten(0, 2)


def cosines_of(state: Tensor) -> Tensor:
    """The same twelve columns of the relative state [L, 43]."""
    return torch.cat([state[:, :7], state[:, 25:30]], dim=1)


def compress(tokens: Tensor, scores: Callable[[Tensor], Tensor]) -> Tensor:
    return tokens.index_select(0, select(scores(tokens)))


def engine_compress(tokens: Tensor) -> Tensor:
    """Argsort, a boolean mask of what is kept, and indexing with it: the rule as serving engines write it."""
    order = torch.argsort(surprise(tokens), descending=True, stable=True)
    mask = torch.zeros(LENGTH, dtype=torch.bool, device=tokens.device)
    mask[order[:KEEP]] = True
    return tokens[mask]


def close(found: Tensor, ours: Tensor) -> None:
    torch.testing.assert_close(found, ours, rtol=1e-3, atol=1e-4)


def same(found: Tensor, ours: Tensor) -> None:
    torch.testing.assert_close(found, ours, rtol=0, atol=0)


def nearly_the_same_rows(found: Tensor, ours: Tensor) -> None:
    """Rows kept by scores that differ in rounding: all but a few at the border are the same ones."""
    assert found.shape == ours.shape
    rows = [{row.tobytes() for row in kept.float().cpu().numpy()} for kept in (found, ours)]
    assert len(rows[0] ^ rows[1]) <= len(found) // 100, "they keep other rows"


def nearly_the_same_indices(found: Tensor, ours: Tensor) -> None:
    """But for one in a hundred: once a distance has been rounded to the other side, others follow."""
    assert found.shape == ours.shape
    assert torch.isin(found, ours).float().mean() > 0.99, "they take other rows"
