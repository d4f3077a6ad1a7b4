"""Random packed batches: what the tests of every op run over.

A :class:`Layout` is how tokens fall into videos and frames; tokens, scores and budgets for it come from a seeded
generator, so a failure repeats. ``LAYOUTS`` are fixed ones for parametrisation, :func:`layouts` is the same space for
hypothesis.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import torch
from hypothesis import strategies as st
from torch import Tensor

TOKEN_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# One below, at and above the lanes of a vector register, and a few that are real models'.
WIDTHS = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 70, 257, 1024)


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def int64(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Videos as (frames, tokens in a frame)."""

    videos: tuple[tuple[int, int], ...]

    @property
    def lengths(self) -> list[int]:
        return [frames * tokens for frames, tokens in self.videos]

    @property
    def length(self) -> int:
        return sum(self.lengths)

    @property
    def cu_seqlens(self) -> Tensor:
        return int32(0, *torch.tensor(self.lengths).cumsum(0).tolist())

    @property
    def tokens_per_frame(self) -> Tensor:
        return int32(*(tokens for _, tokens in self.videos))

    def spans(self) -> list[slice]:
        offsets = self.cu_seqlens.tolist()
        return [slice(begin, end) for begin, end in itertools.pairwise(offsets)]

    def tokens(self, width: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
        return torch.randn(self.length, width, generator=generator(seed)).to(dtype)

    def scores(self, seed: int = 0, scale: float = 1.0) -> Tensor:
        return torch.randn(self.length, generator=generator(seed)) * scale

    def keep(self, seed: int = 0) -> tuple[Tensor, int]:
        """A budget for each video, from nothing to everything, and their sum."""
        random = generator(seed)
        budgets = [int(torch.randint(0, length + 1, (), generator=random)) for length in self.lengths]
        return int32(*budgets), sum(budgets)


LAYOUTS = {
    "one": Layout(((4, 6),)),
    "ragged": Layout(((5, 7), (3, 1), (1, 12), (9, 4), (2, 33))),
    "with_empty": Layout(((0, 5), (4, 3), (0, 1), (0, 9), (6, 2), (0, 4))),
    "only_empty": Layout(((0, 3), (0, 1))),
    "single_frame": Layout(((1, 17), (1, 1))),
    "single_token_frames": Layout(((23, 1), (1, 1), (70, 1))),
    "empty_frames": Layout(((0, 0), (3, 2))),  # an empty video may say 0 tokens in a frame
    "long": Layout(((150, 2), (3, 50))),  # more frames than a work item of surprise follows
}


def layouts(max_videos: int = 5, max_frames: int = 9, max_tokens: int = 20) -> st.SearchStrategy[Layout]:
    """Any layout: empty videos, one frame, one token."""
    video = st.tuples(st.integers(0, max_frames), st.integers(1, max_tokens))
    return st.lists(video, min_size=1, max_size=max_videos).map(lambda videos: Layout(tuple(videos)))


seeds = st.integers(0, 2**31 - 1)
widths = st.one_of(st.integers(1, 70), st.sampled_from(WIDTHS))
token_dtypes = st.sampled_from(TOKEN_DTYPES)

SCORE_KINDS = ("normal", "ties", "equal", "wide", "huge", "tiny", "infinite", "nan", "mixed")


def scores_of_kind(kind: str, length: int, seed: int = 0) -> Tensor:
    """float32 [length] of the sort that rules of ranking get wrong."""
    random = generator(seed)
    normal = torch.randn(length, generator=random)
    pick = torch.randint(0, 6, (length,), generator=random)
    special = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 1.0])[pick]
    match kind:
        case "normal":
            return normal
        case "ties":
            return (normal * 2).round() / 2  # a handful of values, with 0.0 and -0.0 among them
        case "equal":
            return torch.full((length,), -1.25)
        case "wide":
            return normal * 30
        case "huge":
            return normal.sign() * 10 ** (torch.rand(length, generator=random) * 38)
        case "tiny":
            return normal * 1e-38  # subnormals among them
        case "infinite":
            return torch.where(pick < 2, special, normal)
        case "nan":
            return torch.where(pick == 2, special, normal)
        case "mixed":
            return torch.where(pick < 5, special, normal)
    raise ValueError(kind)
