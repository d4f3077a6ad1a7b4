"""Later turns of a conversation whose first prompt was compressed: what callers write of whole prompts, made to fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from score_video.checks import is_integer
from score_video.errors import ScoreError
from score_video.mllm.compress import CompressedInputs
from score_video.mllm.whole_prompt import WholePrompt

_PER_TOKEN = ("mm_token_type_ids", "token_type_ids")


@dataclass(frozen=True)
class FirstTurn:
    """Prompts and what was kept of them, which is what their cache begins with.

    Attributes:
        places: bool [B, S], the places of the whole prompts that were kept.
        lengths: int64 [B], tokens of the whole prompts without padding.
        shorter, mask: int64 [B, W], ids and attention mask of the shorter prompts.
        placeholders: ids of the tokens that stand for videos.
    """

    places: Tensor
    lengths: Tensor
    shorter: Tensor
    mask: Tensor
    placeholders: frozenset[int]

    @staticmethod
    def of(ids: Tensor, mask: Tensor | None, compressed: CompressedInputs) -> FirstTurn:
        """ids, mask: int64 [B, S], of the whole prompts."""
        assert compressed.places is not None
        whole = torch.ones_like(ids) if mask is None else mask
        dropped = whole.bool() & ~compressed.places
        mask = compressed["attention_mask"]
        shorter = ids.new_zeros(mask.shape).masked_scatter(mask.bool(), ids[compressed.places])
        return FirstTurn(
            compressed.places,
            whole.sum(1),
            shorter,
            mask,
            frozenset(ids[dropped].tolist()),
        )

    def rows(self, count: int) -> FirstTurn:
        """The same for ``count`` rows, as many of each prompt: several answers go on by themselves."""
        copies = count // len(self.places)
        if copies == 1:
            return self
        parts = ("places", "lengths", "shorter", "mask")
        return replace(self, **{name: getattr(self, name).repeat_interleave(copies, 0) for name in parts})

    def columns_of_logits(self, last: object) -> Tensor:
        """int64 [B, N]: which of the shorter prompts' places has the logits of each place of the whole ones.

        Of a dropped place: those of the last that is kept before it, which foretell what comes next just so.

        Args:
            last: N, the number of places at the end that are asked for; 0: all S.

        Raises:
            TypeError: it is no number.
        """
        if not is_integer(last):
            raise TypeError(f"logits_to_keep must be a number in a model that is wrapped, got {type(last).__name__}")
        before = (self.places.cumsum(1) - 1).clamp(min=0)
        columns = before + (self.mask.shape[1] - self.mask.sum(1, keepdim=True))
        return columns[:, -last:]

    def later_inputs(self, given: Mapping[str, Any], consumed: Collection[str]) -> tuple[dict[str, Any], WholePrompt]:
        """Arguments of ``generate`` for a later turn, as if its first had been written with the shorter prompts.

        Args:
            given: ids from the beginning or the new ones alone, the mask of all; pictures that the first turn showed
                already may be with them.
            consumed: inputs of the vision side, which are dropped.

        Raises:
            ScoreError: the new ids show a video.
        """
        ids, mask, length = given["input_ids"], given.get("attention_mask"), self.places.shape[1]
        everything = mask is None or ids.shape[1] == mask.shape[1]
        new = ids[:, length:] if everything else ids
        if self.placeholders.intersection(new.flatten().tolist()):
            raise ScoreError(
                "input_ids must not show another video in a later turn: it cannot be compressed onto a cache; begin "
                "a new conversation that shows both"
            )
        changed = {name: value for name, value in given.items() if name not in (*consumed, *_PER_TOKEN)}
        changed["input_ids"] = torch.cat([self.shorter, new], 1) if everything else ids
        changed["attention_mask"] = self._mask(torch.ones_like(ids) if mask is None else mask)
        return changed, WholePrompt(ids, changed["input_ids"])

    def later_step(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a forward pass on the cache, for those who decode by themselves.

        Raises:
            ScoreError: positions in several rows, which are the model's to count.
        """
        changed = dict(given)
        if (mask := given.get("attention_mask")) is not None:
            changed["attention_mask"] = self.rows(len(mask))._mask(mask)
        if (positions := given.get("position_ids")) is not None:
            if positions.ndim != 2:
                raise ScoreError(
                    f"position_ids must be [prompts, tokens] on a cache of a wrapped model, got {list(positions.shape)}"
                )
            turn = self.rows(len(positions))
            changed["position_ids"] = positions - (turn.lengths - turn.mask.sum(1))[:, None]
        return changed

    def _mask(self, whole: Tensor) -> Tensor:
        """[B, S + N] -> [B, W + N]."""
        return torch.cat([self.mask.to(whole.dtype), whole[:, self.places.shape[1] :]], 1)
