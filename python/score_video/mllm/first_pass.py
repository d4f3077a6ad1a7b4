"""What a model is given, or given back, at the passes that read a compressed prompt: embeddings, and the mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from score_video.mllm.caches import cached_length, given_cache


def inner_model(model: Any) -> Any:
    """The model whose ``generate`` runs: inside of what torch.compile or peft made."""
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def first_pass(model: Any, embeds: Tensor | None, gaps: bool) -> Iterator[None]:
    """Forward passes of a model take a prompt's embeddings [B, W, D], ready-made, in the place of its ids.

    Passes on a cache that holds the prompt are left alone. Where positions have gaps, passes without a cache get a
    mask, which ``generate`` drops if it is 1 all over: positions would be taken for those of packed sequences.
    """

    def fill(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids, cache = given["input_ids"], given_cache(given)  # [B * n, N], of which the cache has the first few
        if gaps and cache is None and given.get("attention_mask") is None:
            given["attention_mask"] = torch.ones_like(ids)
        if embeds is not None:
            start = cached_length(cache)
            ready = embeds[:, start : start + ids.shape[1]].repeat_interleave(len(ids) // len(embeds), 0)
            others = model.get_input_embeddings()(ids[:, ready.shape[1] :])
            given |= {"input_ids": None, "inputs_embeds": torch.cat([ready, others.to(ready.dtype)], 1)}
        if cache is not None and (embeds is None or start + ids.shape[1] >= embeds.shape[1]):
            hook.remove()
        return args, given

    hook = model.register_forward_pre_hook(fill, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class CompressedOutput(BaseModelOutputWithPooling):
    """Features of compressed prompts, by which their passes are known (:func:`keep_mask`)."""


_HANDLE = "_keeps_mask"  # an attribute of the module, so that a copy of it has the handle of its own hook


def keep_mask(module: Any) -> None:
    """The passes of a call that follows get a mask if they have none, and no cache either.

    ``generate`` drops a mask that is 1 all over. With a cache that is all the same; with ``use_cache=False`` the gaps
    that dropped tokens leave in one row of positions would be taken for the borders of packed sequences. The hook goes
    with the first pass that needs none.

    Args:
        module: gets ``input_ids`` [B, N] and ``mm_encoder_outputs`` by name.
    """
    _let_go(module)
    setattr(module, _HANDLE, module.register_forward_pre_hook(_keep_mask, with_kwargs=True))


def _keep_mask(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    outputs = (given.get("mm_encoder_outputs") or {}).values()
    ours = any(isinstance(output, CompressedOutput) for output in outputs)
    if ours and given.get("attention_mask") is None and given_cache(given) is None:
        return args, {**given, "attention_mask": torch.ones_like(given["input_ids"])}
    _let_go(module)
    return args, given


def _let_go(module: Any) -> None:
    if (handle := module.__dict__.pop(_HANDLE, None)) is not None:
        handle.remove()
