"""Ways of dropping tokens that the reader is trained under, so that it is a fair judge of every way of choosing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from score_video.composite.world import FIRST_FLASH, FIRST_LANDMARK, FIRST_MARK, SYMBOLS, TOKENS, TOKENS_PER_FRAME

LIVE_PIXELS, SHOWN_PIXELS = 24, 30
"""From how many of a patch's 196 pixels on a token counts as showing something that lives; any one thing."""

_BY_LOOKS = 7  # number of that way of dropping


def change(tokens: Tensor) -> Tensor:
    """float32 [V, TOKENS], 0 in a first frame: cosine distance to the token before, of [V, TOKENS, D]."""
    frames = F.normalize(tokens.view(len(tokens), -1, TOKENS_PER_FRAME, tokens.shape[-1]).float(), dim=3)
    return F.pad(1 - (frames[:, 1:] * frames[:, :-1]).sum(3), (0, 0, 1, 0)).flatten(1)


def drop(tokens: Tensor, changed: Tensor, shown: Tensor, live: Tensor, keep: int, generator: torch.Generator) -> Tensor:
    """Which tokens each video keeps, each by a way of dropping drawn for it: Gumbel noise on top of a score.

    Args:
        tokens: [B, TOKENS, D].
        changed: float32 [B, TOKENS], of :func:`change`.
        shown: uint8 [B, TOKENS, symbols].
        live: uint8 [B, TOKENS].
        keep: how many.
        generator: the random generator.

    Returns:
        int64 [B, keep], ascending.
    """
    batch = len(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    frame = torch.arange(TOKENS) // TOKENS_PER_FRAME
    changed = (changed + 1e-3).log()
    alive = (live >= LIVE_PIXELS).float()
    there = (shown >= SHOWN_PIXELS).float()
    things = torch.einsum("bnc,bc->bn", there, normal(batch, len(SYMBOLS)))
    flashes = there[..., FIRST_FLASH:FIRST_LANDMARK].amax(2) * alive
    marks, landmarks = there[..., FIRST_MARK:].amax(2) * alive, there[..., FIRST_LANDMARK:FIRST_MARK].amax(2)
    weights, scores = zip(
        (1.5, torch.zeros(batch, TOKENS)),  # by chance
        (0.5, 8 * normal(batch, len(frame) // TOKENS_PER_FRAME)[:, frame]),  # whole frames
        (2.0, 2 * changed),
        (2.5, 2 * alive + changed),
        (1.0, 6 * alive),
        (2.0, 3 * alive + things),
        (1.5, 2 * things),
        (1.5, torch.zeros(batch, TOKENS)),  # by looks, below
        (0.5, 2 * changed + 100 * (frame == 0)),  # the first frame, then by change
        (3.0, 6 * flashes + 4 * marks + 1.5 * landmarks + 2 * alive),  # what is seen shortly, above all
        strict=True,
    )
    way = torch.multinomial(torch.tensor(weights), batch, replacement=True, generator=generator)
    together = torch.stack(scores)[way, torch.arange(batch)]
    for video in (way == _BY_LOOKS).nonzero()[:, 0].tolist():
        looks = tokens[video].float() @ normal(tokens.shape[2])
        together[video] = 1.5 * (looks - looks.mean()) / looks.std().clamp(min=1e-6)
    strength = 0.5 + torch.rand(batch, 1, generator=generator)
    score = together * strength
    uniform = torch.rand(batch, TOKENS, generator=generator).clamp(1e-9, 1 - 1e-7)
    return (score - (-uniform.log()).log()).topk(keep, 1).indices.sort(1).values
