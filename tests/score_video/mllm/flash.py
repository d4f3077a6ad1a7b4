"""FlashAttention's functions in plain torch, put where transformers looks for them: it decides what is packed."""

from __future__ import annotations

from collections.abc import Iterator
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


@contextmanager
def flash_attention(model: Any) -> Iterator[list[tuple[list[int], list[int]]]]:
    """The language model runs with "flash_attention_2". Gives what reaches the kernels: cu_seqlens of queries, keys."""
    calls: list[tuple[list[int], list[int]]] = []

    def dense(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: Any = None, causal: bool = False,
              window_size: Any = (-1, -1), softcap: float = 0.0, deterministic: bool = False) -> Tensor:  # fmt: skip
        starts = [[n * side.shape[1] for n in range(len(q) + 1)] for side in (q, k)]
        calls.append((starts[0], starts[1]))
        return torch.stack([attend(*row, causal, softmax_scale) for row in zip(q, k, v, strict=True)])

    def varlen(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: Any,
               max_seqlen_k: Any, dropout_p: float = 0.0, softmax_scale: Any = None, causal: bool = False,
               window_size: Any = (-1, -1), softcap: float = 0.0, deterministic: bool = False) -> Tensor:  # fmt: skip
        calls.append((cu_seqlens_q.tolist(), cu_seqlens_k.tolist()))
        assert cu_seqlens_q[-1] == len(q) and cu_seqlens_k[-1] == len(k) == len(v)
        assert int(max_seqlen_q) == cu_seqlens_q.diff().max() and int(max_seqlen_k) == cu_seqlens_k.diff().max()
        lengths = [cu.diff().tolist() for cu in (cu_seqlens_q, cu_seqlens_k, cu_seqlens_k)]
        rows = zip(*(part.split(n) for part, n in zip((q, k, v), lengths, strict=True)), strict=True)
        return torch.cat([attend(*row, causal, softmax_scale) for row in rows])

    functions = (dense, varlen, None, utils._pad_input, utils._unpad_input)
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    before = [config._attn_implementation_internal for config in configs]
    lazy, loaded = utils._lazy_imports, utils._loaded_implementation
    try:
        utils._lazy_imports = lambda *args, **kwargs: functions
        utils._loaded_implementation = None
        for config in configs:
            config._attn_implementation_internal = "flash_attention_2"
        yield calls
    finally:
        utils._lazy_imports, utils._loaded_implementation = lazy, loaded
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation
