"""Vision towers of the miniature's readers. They see one frame at a time, and may be run on a part of its patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from score_video.errors import ScoreError
from score_video.miniature.block import Block
from score_video.miniature.world import SIZE
from score_video.thumbnails import patches_of

# Strides of the convolutions for each size of patch: their product is the patch
_STRIDES = {3: (1, 3, 1), 4: (1, 2, 2), 6: (1, 2, 3)}
PATCHES = tuple(_STRIDES)
"""Pixels, each side of a token's patch, that a tower can have."""

_HEAD_WIDTH = 16


class ConvolutionalTower(nn.Module):
    """Frames -> tokens: three 3 x 3 convolutions; a token sees its patch and a little around it, in one frame.

    Args:
        patch: pixels, each side.
        width: channels; ``depth``: 1 x 1 layers after the convolutions.
        token_width: D.
    """

    def __init__(self, patch: int, width: int, depth: int, token_width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = (3, width // 4, width // 2, width)
        for number, stride in enumerate(_STRIDES[patch]):
            layers += [nn.Conv2d(channels[number], channels[number + 1], 3, stride, padding=1), nn.GELU()]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 1), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, token_width, 1))

    def forward(self, pixels: Tensor, seen: Tensor | None = None) -> Tensor:
        """[B, T, 3, 24, 24] -> [B, T, rows * columns, D].

        ``seen`` changes nothing: what a token sees around it is as much wherever else the tower runs.
        """
        features = self.layers(_centred(pixels).flatten(0, 1))  # [B * T, D, rows, columns]
        tokens: Tensor = features.flatten(2).transpose(1, 2)
        return tokens.view(*pixels.shape[:2], *tokens.shape[1:])


class AttentionTower(nn.Module):
    """Frames -> tokens: a ViT, in which all patches of a frame look at each other.

    Args:
        patch: pixels, each side.
        width: hidden size, a multiple of 16; ``depth``: layers.
        token_width: D.
    """

    def __init__(self, patch: int, width: int, depth: int, token_width: int) -> None:
        super().__init__()
        if width % _HEAD_WIDTH or depth < 1:
            raise ScoreError(
                f"tower_width must be a multiple of {_HEAD_WIDTH} and tower_depth 1 or more for a ViT, "
                f"got {width} and {depth}"
            )
        self.patch = patch
        self.embed = nn.Linear(3 * patch**2, width)
        self.place = nn.Parameter(torch.randn((SIZE // patch) ** 2, width) * 0.5)
        self.blocks = nn.ModuleList(Block(width, width // _HEAD_WIDTH) for _ in range(depth))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, token_width))

    def forward(self, pixels: Tensor, seen: Tensor | None = None) -> Tensor:
        """[B, T, 3, 24, 24] -> [B, T, rows * columns, D].

        Args:
            pixels: 0 to 1.
            seen: bool [B, T, rows * columns], the patches that are there: the others are masked out of the attention,
                and what stands in their places means nothing. None: all.
        """
        patches = patches_of(_centred(pixels).flatten(0, 1), self.patch).flatten(2)  # [B * T, patches, 3 * patch^2]
        hidden = self.embed(patches) + self.place
        mask = None
        if seen is not None:
            there = seen.flatten(0, 1)
            # a frame of which nothing is there would be a softmax of nothing, NaN
            mask = (there | ~there.any(1, keepdim=True))[:, None, None, :]
        nobody = hidden[:, :0]
        for block in self.blocks:
            hidden, _ = block(hidden, nobody, mask)
        tokens: Tensor = self.out(hidden)
        return tokens.view(*pixels.shape[:2], *tokens.shape[1:])


def _centred(pixels: Tensor) -> Tensor:
    return (pixels - 0.4) * 2
