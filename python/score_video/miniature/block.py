"""The transformer layer that the miniature's reader is made of, and its vision tower where that attends."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """A pre-norm transformer layer. Video tokens attend to video tokens, questions to video tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, video: Tensor, questions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """video [B, n, width]; questions [B, Q, width]; mask bool [B, 1, 1, n], True where there is a token."""
        both = torch.cat([video, questions], 1)
        q, k, v = self.qkv(self.norm1(both)).chunk(3, 2)
        n = video.shape[1]
        attended = F.scaled_dot_product_attention(
            self._split(q), self._split(k[:, :n]), self._split(v[:, :n]), attn_mask=mask
        )
        both = both + self.out(attended.transpose(1, 2).flatten(2))
        both = both + self.down(F.gelu(self.up(self.norm2(both))))
        return both[:, :n], both[:, n:]
