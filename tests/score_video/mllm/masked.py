"""What compression is measured against: the stock model on the whole prompts, with the dropped tokens masked out.

Nothing here asks the package where tokens are or what positions they have: places come from who wrote the prompts
(tiny.py), positions from the stock model's own ``generate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tiny import Batch, Family
from torch import Tensor

from score_video.compressor import Compressor
from score_video.mllm import CompressedInputs, compress_inputs

SEE_EACH_OTHER = ("molmo2",)
"""Models of which the tokens of pictures, told by their types, see each other."""

TOLERANCE = 5e-6
"""Of :func:`difference` between float32 logits: sums run in another order where tokens are masked, and with other
vector units; what is wrong shows at 1e-3."""


@dataclass(frozen=True)
class Pair:
    """A compressed batch, and the same as inputs of the stock model with the dropped tokens masked.

    Attributes:
        compressed: the package's.
        masked: whole prompts, positions given, mask 0 at padding and at dropped tokens.
    """

    compressed: CompressedInputs
    masked: dict[str, Any]

    def logits(self, model: Any) -> tuple[Tensor, Tensor]:
        """Of a forward pass, [tokens kept, vocabulary] of both."""
        ours = model(**self.compressed).logits[self.compressed["attention_mask"].bool()]
        return ours, model(**self.masked).logits[self.masked["attention_mask"].bool()]

    def generated(self, model: Any, **options: Any) -> tuple[Any, Any]:
        """What ``generate`` returns for both, nine tokens unless told otherwise; the same seed for both."""
        options = {"max_new_tokens": 9, "do_sample": False, **options}
        answers = []
        for inputs in (self.compressed, self.masked):
            torch.manual_seed(0)
            answers.append(model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True))
        return answers[0], answers[1]

    def new_tokens(self, ours: Any, masked: Any) -> tuple[Tensor, Tensor]:
        """The answers alone, of what :meth:`generated` returned."""
        return ours.sequences[:, self.compressed.prompt_length :], masked.sequences[:, self.masked_length :]

    @property
    def masked_length(self) -> int:
        return int(self.masked["input_ids"].shape[1])


def compress(family: Family, batch: Batch, compressor: Compressor, side: str = "left", **options: Any) -> Pair:
    inputs = batch.inputs(side)
    if family.told:
        options["visual_layout"] = batch.pictures
    compressed = compress_inputs(family.model, {**inputs, **labels_of(inputs, options)}, compressor, **options)
    return Pair(compressed, masked(family.model, inputs, dropped(batch, compressed.kept, side)))


def labels_of(inputs: dict[str, Any], options: dict[str, Any]) -> dict[str, Tensor]:
    labels = options.pop("labels", None)
    return {} if labels is None else {"labels": labels}


def dropped(batch: Batch, kept: Sequence[Tensor], side: str = "left") -> list[tuple[int, int]]:
    """(row, column) of every token of the padded prompts that is not kept."""
    width = max(len(row) for row in batch.ids)
    places = []
    for tokens, stays in zip(batch.places, kept, strict=True):
        gone = set(range(len(tokens))) - set(stays.tolist())
        for token in gone:
            row, place = tokens[token]
            places.append((row, place + (width - len(batch.ids[row]) if side == "left" else 0)))
    return places


def masked(model: Any, inputs: dict[str, Any], gone: list[tuple[int, int]]) -> dict[str, Any]:
    mask = inputs["attention_mask"].clone()
    for row, column in gone:
        mask[row, column] = 0
    # not needed where positions are given, and too short for an answer
    needed = model.config.model_type in SEE_EACH_OTHER
    others = {name: value for name, value in inputs.items() if name != "mm_token_type_ids" or needed}
    return {**others, "attention_mask": mask, "position_ids": stock_positions(model, inputs)}


def stock_positions(model: Any, inputs: dict[str, Any]) -> Tensor:
    """The positions that the stock model's ``generate`` gives to whole prompts."""
    seen: list[Tensor] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    try:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    finally:
        hook.remove()
    return seen[0]


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the scale of the logits."""
    if not isinstance(ours, Tensor):
        ours, theirs = torch.stack(ours), torch.stack(theirs)
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
