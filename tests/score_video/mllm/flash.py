"""FlashAttention's functions in plain torch, put where transformers looks for them: it decides what is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers.modeling_flash_attention_utils as utils
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float | None) -> Tensor:
    """[Q, H, D], [K, G, D] -> [Q, H, D]; the last query sees the last key."""
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(0, 1) for part in (k, v))
    seen = torch.ones(q.shape[0], k.shape[1], dtype=torch.bool)
    if causal:
        seen = seen.tril(k.shape[1] - q.shape[0])
    out = torch.nn.functional.scaled_dot_product_attention(q.transpose(0, 1), k, v, seen, scale=scale)
    return out.transpose(0, 1)


Kernel = Callable[[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], bool, Any], Tensor]


def in_torch(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[Tensor, Tensor], causal: bool, scale: Any) -> Tensor:
    """Sequences in a row, [Q, H, D], [K, G, D] -> [Q, H, D]; lengths: cu_seqlens of queries and keys."""
    parts = zip((q, k, v), (lengths[0], lengths[1], lengths[1]), strict=True)
    rows = zip(*(part.split(cu.diff().tolist()) for part, cu in parts), strict=True)
    return torch.cat([attend(*row, causal, scale) for row in rows])


@contextmanager
def flash_attention(model: Any, kernel: Kernel | None = in_torch) -> Iterator[list[tuple[list[int], list[int]]]]:
    """The language model runs with "flash_attention_2". Gives what reaches the kernels: cu_seqlens of queries, keys.

    kernel: what attends; None: the installed one's functions, of which nothing is told.
    """
    calls: list[tuple[list[int], list[int]]] = []

    def attend_rows(
        q: Tensor, k: Tensor, v: Tensor, lengths: tuple[Tensor, Tensor], causal: bool, scale: Any
    ) -> Tensor:
        assert kernel is not None
        calls.append((lengths[0].tolist(), lengths[1].tolist()))
        assert lengths[0][-1] == len(q) and lengths[1][-1] == len(k) == len(v)
        return kernel(q, k, v, lengths, causal, scale)

    def dense(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: Any = None, causal: bool = False,
              window_size: Any = (-1, -1), softcap: float = 0.0, deterministic: bool = False) -> Tensor:  # fmt: skip
        rows = torch.arange(len(q) + 1, dtype=torch.int32, device=q.device)
        lengths = rows * q.shape[1], rows * k.shape[1]
        out = attend_rows(*(part.flatten(0, 1) for part in (q, k, v)), lengths, causal, softmax_scale)
        return out.view(q.shape)

    def varlen(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: Any,
               max_seqlen_k: Any, dropout_p: float = 0.0, softmax_scale: Any = None, causal: bool = False,
               window_size: Any = (-1, -1), softcap: float = 0.0, deterministic: bool = False) -> Tensor:  # fmt: skip
        assert int(max_seqlen_q) == cu_seqlens_q.diff().max() and int(max_seqlen_k) == cu_seqlens_k.diff().max()
        return attend_rows(q, k, v, (cu_seqlens_q, cu_seqlens_k), causal, softmax_scale)

    functions = (dense, varlen, None, utils._pad_input, utils._unpad_input)
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    before = [config._attn_implementation_internal for config in configs]
    lazy, loaded = utils._lazy_imports, utils._loaded_implementation
    try:
        if kernel is not None:
            utils._lazy_imports = lambda *args, **kwargs: functions
        utils._loaded_implementation = None
        for config in configs:
            config._attn_implementation_internal = "flash_attention_2"
        yield calls
    finally:
        utils._lazy_imports, utils._loaded_implementation = lazy, loaded
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation
