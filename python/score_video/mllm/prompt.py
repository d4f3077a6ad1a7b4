"""A batch of prompts, and the same prompts with some of their positions left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from score_video.errors import ScoreError

IGNORED = -100
"""A label that does not count towards the loss, as in transformers."""


class Shortening:
    """Moves what is kept of each row of a batch to the right end of a shorter row."""

    def __init__(self, kept: Tensor, padding: int = 0) -> None:
        """kept: bool [B, S], True for what stays. padding: columns in front of the longest. Waits for the device."""
        lengths = kept.sum(1)
        counts = lengths.tolist()
        self.width = max(counts) + padding
        self._source = kept.flatten().nonzero()[:, 0]  # [K], places in all rows one after the other
        self._target: Tensor | None = None  # [K], places in the shorter ones; None: they are full
        if min(counts) < self.width:
            first = torch.arange(1, len(counts) + 1, device=kept.device) * self.width - lengths  # of each row
            moved = (first - lengths.cumsum(0) + lengths).repeat_interleave(lengths, output_size=len(self._source))
            self._target = torch.arange(len(self._source), device=kept.device) + moved

    def __call__(self, values: Tensor, fill: int | bool) -> Tensor:
        """[..., B, S] -> [..., B, width], with ``fill`` on the left of the rows that keep fewer."""
        kept = values.flatten(-2).index_select(-1, self._source)
        if self._target is not None:
            full = values.new_full((*values.shape[:-2], values.shape[-2] * self.width), fill)
            kept = full.index_copy_(-1, self._target, kept)
        return kept.view(*values.shape[:-1], self.width)


@dataclass(frozen=True)
class Prompt:
    """B prompts of at most S tokens.

    Attributes:
        input_ids: int64 [B, S].
        attention_mask: int64 [B, S], 0 where a row is padding (on either side).
        position_ids: int64 [B, S], or [R, B, S] for rotary positions of R rows.
        labels: int64 [B, S], :data:`IGNORED` where there is none; or None.
        carried: other inputs with a value for each token, [B, S], by name; 0 at padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor | None
    carried: Mapping[str, Tensor] = field(default_factory=dict)

    def shorten(self, shortening: Shortening, pad_token_id: int) -> Prompt:
        """The prompts of the positions that are kept; ``pad_token_id`` fills rows that are shorter than the longest."""
        return Prompt(
            shortening(self.input_ids, pad_token_id),
            shortening(self.attention_mask, 0),
            shortening(self.position_ids, 0),
            None if self.labels is None else shortening(self.labels, IGNORED),
            {name: shortening(values, 0) for name, values in self.carried.items()},
        )

    def text_positions(self) -> Tensor:
        """int64 [B, S]: 0, 1, 2... over what is not padding, which has 0."""
        return self.attention_mask.cumsum(1).sub_(1).mul_(self.attention_mask)


def read_prompt(inputs: Mapping[str, Any]) -> Prompt:
    """Finds the prompts in a processor's output; positions are counted 0, 1, 2... (:meth:`Prompt.text_positions`).

    Raises:
        TypeError, ValueError: ``input_ids``, ``attention_mask`` or ``labels`` is no tensor of integers, is not [B, S],
            or they differ in shape; ``input_ids`` is missing; the mask holds something else than 0 and 1.
    """
    ids = _matrix("input_ids", inputs.get("input_ids"), None)
    if (mask := inputs.get("attention_mask")) is None:
        mask = torch.ones_like(ids)
    if (labels := inputs.get("labels")) is not None:
        labels = _matrix("labels", labels, ids.shape)
    mask = _matrix("attention_mask", mask, ids.shape).long()
    low, high = torch.stack(mask.aminmax()).tolist()
    if low < 0 or high > 1:
        raise ScoreError("inputs['attention_mask'] must hold 0 and 1")
    prompt = Prompt(ids, mask, ids, labels)
    return replace(prompt, position_ids=prompt.text_positions())


def _matrix(name: str, values: object, shape: torch.Size | None) -> Tensor:
    if not isinstance(values, Tensor):
        raise TypeError(f"inputs[{name!r}] must be a tensor (return_tensors='pt'), got {type(values).__name__}")
    if values.is_floating_point() or values.is_complex():
        raise TypeError(f"inputs[{name!r}] must hold integers, got {values.dtype}")
    if values.ndim != 2 or values.numel() == 0 or (shape is not None and values.shape != shape):
        wanted = "[prompts, tokens]" if shape is None else f"{list(shape)} of input_ids"
        raise ScoreError(f"inputs[{name!r}] must have the shape {wanted}, got {list(values.shape)}")
    return values
