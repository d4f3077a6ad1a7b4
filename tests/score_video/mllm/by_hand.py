"""What compression of hybrid models is measured against: the stock model on shortened embeddings, put together here.

The stock model's own ``generate`` on the whole prompts shows what its decoder is given; what is dropped is cut out of
that, column by column, and the decoder continues on it with given tokens. Nothing here asks the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

PER_TOKEN = ("per_layer_inputs",)
"""Arguments with a value for each token that models make of the prompts' tokens for their decoders."""


@dataclass
class ByHand:
    """Shortened prompts as a decoder takes them, and positions of what follows.

    Attributes:
        embeds: [B, S, D], padded on the left.
        mask: int64 [B, S].
        positions: int64 [B, S] or [3, B, S], as in the whole prompts, moved so that the last is the number of tokens.
        following: int64 [B, 1] or [3, B, 1], the position of the first token of an answer.
        extras: other arguments of the decoder at prefill.
        arguments: and of the model.
    """

    model: Any
    embeds: Tensor
    mask: Tensor
    positions: Tensor
    following: Tensor
    extras: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)

    def repeat(self, copies: int) -> ByHand:
        """Each prompt so many times, one after the other."""

        def several(values: Tensor) -> Tensor:
            return values.repeat_interleave(copies, 1 if values.ndim == 3 and values is not self.embeds else 0)

        assert not self.extras, "features of later layers are not repeated here"
        arguments = {name: values.repeat_interleave(copies, 0) for name, values in self.arguments.items()}
        fields = (several(part) for part in (self.embeds, self.mask, self.positions, self.following))
        return ByHand(self.model, *fields, {}, arguments)

    def logits(self, answers: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of the prompts [tokens kept, vocabulary], and of the answers int64 [B, N], [N, B, vocabulary]."""

        def more(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, kwargs | self.extras

        hook = self.model.get_decoder().register_forward_pre_hook(more, with_kwargs=True)
        try:
            output = self.model(
                inputs_embeds=self.embeds,
                attention_mask=self.mask,
                position_ids=self.positions,
                use_cache=True,
                **self.arguments,
            )
        finally:
            hook.remove()
        prompt, steps, mask = output.logits[self.mask.bool()], [output.logits[:, -1]], self.mask
        for step in range(0 if answers is None else answers.shape[1] - 1):
            assert answers is not None
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            name = "cache" if "cache" in output else "past_key_values"
            output = self.model(
                input_ids=answers[:, step : step + 1],
                attention_mask=mask,
                position_ids=self.following + step,
                use_cache=True,
                **{name: output[name]},
            )
            steps.append(output.logits[:, -1])
        return prompt, torch.stack(steps)


def by_hand(
    model: Any,
    inputs: dict[str, Any],
    gone: Sequence[tuple[int, int]],
    carried: Sequence[str] = (),
    counted: bool = False,
) -> ByHand:
    """The prompts of ``inputs`` without the columns (row, column) in ``gone``.

    carried: inputs with a value for each token that the model reads at prefill.
    counted: positions are the numbers of tokens in the shorter prompts.
    """
    seen: list[dict[str, Any]] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(dict(kwargs)), with_kwargs=True
    )
    try:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    finally:
        hook.remove()
    prefill = seen[0]
    kept = inputs["attention_mask"].bool()
    for row, column in gone:
        kept[row, column] = False
    width = int(kept.sum(1).max())

    def shorten(values: Tensor, fill: Tensor | None = None) -> Tensor:
        """[B, S, ...] -> [B, width, ...]"""
        shorter = values.new_zeros(len(kept), width, *values.shape[2:])
        if fill is not None:
            shorter[:] = fill
        for row, stays in enumerate(kept):
            here = values[row if len(values) > 1 else 0, stays]
            shorter[row, width - len(here) :] = here
        return shorter

    mask = shorten(inputs["attention_mask"])
    positions, following = (call["position_ids"] for call in seen[:2])
    if counted:
        positions, following = (mask.cumsum(1) - 1).clamp(min=0), mask.sum(1, keepdim=True)
    else:
        # a row for masks alone stands in front, where there are four
        rows = positions[-3:] if positions.ndim == 3 else positions.expand(len(kept), -1)[None]
        positions = torch.stack([shorten(row) for row in rows])
        # rotary attention sees differences alone; so moved, both sides round alike
        moved = positions[:, :, -1].amax(0)[:, None] + 1 - mask.sum(1, keepdim=True)
        positions, following = positions - moved, (following[-3:] if following.ndim == 3 else following[None]) - moved
        if len(positions) == 1:
            positions, following = positions[0], following[0]
    extras = deepstack(prefill, kept, shorten)
    arguments = {name: shorten(prefill[name]) for name in PER_TOKEN if isinstance(prefill.get(name), Tensor)}
    arguments |= {name: shorten(inputs[name]) for name in carried}
    padding = model.get_input_embeddings()(torch.tensor(0))
    return ByHand(model, shorten(prefill["inputs_embeds"], padding), mask, positions, following, extras, arguments)


def deepstack(prefill: dict[str, Any], kept: Tensor, shorten: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """The features of later layers, of what is kept."""
    places = prefill.get("visual_pos_masks")
    if places is None:
        return {}
    stays = kept[places]  # of each visual token, in the order of the prompts
    return {
        "visual_pos_masks": shorten(places),
        "deepstack_visual_embeds": [layer[stays] for layer in prefill["deepstack_visual_embeds"]],
    }
