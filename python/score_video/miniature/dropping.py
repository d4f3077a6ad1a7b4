"""Ways of dropping tokens that the reader is trained under.

A reader trained on all tokens, or under uniform dropping alone, is a judge that makes random selection look good and
anything else bad. This one meets every kind: by chance, by frame, by change, by content, by looks, first frame first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from score_video.miniature.world import LIVE_THINGS, NUM_THINGS, SIZE, Videos


def live_tokens(shown: Tensor) -> Tensor:
    """bool [..., n]: at least two pixels of the patch show something that moves or flashes; shown [..., n, things]."""
    return shown[..., list(LIVE_THINGS)].sum(-1) >= 2


def pixel_change(videos: Videos, columns: int) -> Tensor:
    """float32 [B, n], 0 in a first frame: mean absolute difference of a patch's pixels to the frame before."""
    difference = F.pad(videos.pixels.diff(dim=1).abs().mean(2), (0, 0, 0, 0, 1, 0))  # [B, T, S, S]
    return F.avg_pool2d(difference, SIZE // columns).flatten(1)


def drop(videos: Videos, shown: Tensor, tokens: Tensor, columns: int, keep: int, generator: torch.Generator) -> Tensor:
    """Which tokens each video keeps, each by a way of dropping drawn for it.

    All are Gumbel noise on top of a score; the ways differ in the score, and each video draws its strength.

    Args:
        videos: B of them.
        shown: [B, n, things], pixels of each thing in each token's patch.
        tokens: [B, n, D], for the way that goes by a direction in token space.
        columns: tokens in a row of a frame.
        keep: int32 [B], how many tokens each video keeps.
        generator: the random generator.

    Returns:
        int64 [B, keep], ascending.
    """
    batch, n, _ = shown.shape
    frames = videos.pixels.shape[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")

    frame = torch.arange(n, device="cpu") // (n // frames)
    change = (pixel_change(videos, columns) + 1e-3).log()
    live = live_tokens(shown).float()
    things = torch.einsum("bnc,bc->bn", (shown > 1).float(), normal(batch, NUM_THINGS))
    looks = torch.einsum("bnd,bd->bn", tokens - tokens.mean(1, keepdim=True), normal(batch, tokens.shape[2]))
    looks = looks / looks.std(1, keepdim=True).clamp(min=1e-6)
    weights, scores = zip(
        (1.5, torch.zeros(batch, n, dtype=torch.float32, device="cpu")),  # by chance
        (0.5, 8 * normal(batch, frames)[:, frame]),  # whole frames
        (2.0, change),
        (3.0, 2 * live + 0.5 * change),
        (1.5, 6 * live),
        (2.0, 3 * live + things),
        (1.0, 2 * things),
        (1.0, 1.5 * looks),
        (0.5, change + 100 * (frame == 0)),  # the first frame, then by change
        strict=True,
    )
    way = torch.multinomial(tokens.new_tensor(weights), batch, replacement=True, generator=generator)
    strength = 0.5 + torch.rand(batch, 1, generator=generator, dtype=torch.float32, device="cpu")
    score = torch.stack(scores)[way, torch.arange(batch, device="cpu")] * strength
    uniform = torch.rand(batch, n, generator=generator, dtype=torch.float32, device="cpu").clamp(1e-9, 1 - 1e-7)
    return (score - (-uniform.log()).log()).topk(keep, 1).indices.sort(1).values
