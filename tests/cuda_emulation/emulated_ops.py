"""The ops as score_ext has them, computed by the emulated kernels.

Outputs are poisoned first, so that what a kernel leaves unwritten compares equal to nothing that is expected.
"""

from __future__ import annotations

import math

import torch
from emulator import DTYPES, Emulator, Input
from torch import Tensor

METRICS = {"cosine": 0, "l2": 1}  # score::Metric
LAWS = {"topk": 0, "systematic": 1}  # score::Law


def poisoned(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.full(shape, -12345 if dtype.is_signed else 0xAB, dtype=dtype)


def _packed(cu_seqlens: Tensor, num_tokens: int) -> dict[str, object]:
    return {"cu_seqlens": cu_seqlens, "num_videos": len(cu_seqlens) - 1, "num_tokens": num_tokens}


class Ops:
    """The ops on one emulator. `misalignment` of tokens is in bytes."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator

    def _call(self, function: str, **arguments: object) -> None:
        error = self.emulator.call(function, **arguments)
        assert error == 0, f"{function} returned cudaError {error}"

    def surprise(
        self,
        tokens: Tensor,
        cu_seqlens: Tensor,
        tokens_per_frame: Tensor,
        metric: str = "cosine",
        first: float = math.inf,
        misalignment: int = 0,
    ) -> Tensor:
        out = poisoned(len(tokens), dtype=torch.float32)
        self._call(
            "surprise",
            **_packed(cu_seqlens, len(tokens)),
            tokens=Input(tokens, misalignment),
            dtype=DTYPES[tokens.dtype],
            width=tokens.shape[1],
            tokens_per_frame=tokens_per_frame,
            metric=METRICS[metric],
            first=first,
            out=out,
        )
        return out

    def policy_state(
        self,
        tokens: Tensor,
        cu_seqlens: Tensor,
        tokens_per_frame: Tensor,
        position: Tensor | None,
        begin: int,
        end: int,
        dtype: torch.dtype,
        use_token: bool = True,
        use_residual: bool = True,
        epsilon: float = 1e-5,
        misalignment: int = 0,
    ) -> Tensor:
        if position is None:
            position = torch.empty(len(tokens), 0)
        columns = tokens.shape[1] * (use_token + use_residual) + position.shape[1]
        out = poisoned(end - begin, columns, dtype=dtype)
        self._call(
            "policy_state",
            **_packed(cu_seqlens, len(tokens)),
            tokens=Input(tokens, misalignment),
            dtype=DTYPES[tokens.dtype],
            width=tokens.shape[1],
            tokens_per_frame=tokens_per_frame,
            position=position,
            position_width=position.shape[1],
            begin=begin,
            end=end,
            out_dtype=DTYPES[dtype],
            use_token=int(use_token),
            use_residual=int(use_residual),
            epsilon=epsilon,
            out=out,
        )
        return out

    def select(
        self,
        scores: Tensor,
        cu_seqlens: Tensor,
        keep: Tensor,
        total_keep: int,
        law: str = "topk",
        offset: float = 0.5,
    ) -> Tensor:
        index = poisoned(total_keep, dtype=torch.int64)
        self._call(
            "select",
            **_packed(cu_seqlens, len(scores)),
            scores=scores,
            keep=keep,
            total_keep=total_keep,
            law=LAWS[law],
            offset=offset,
            index=index,
        )
        return index

    def draw(
        self, logits: Tensor, cu_seqlens: Tensor, keep: Tensor, total_keep: int, num_samples: int, seed: Tensor
    ) -> tuple[Tensor, Tensor]:
        index = poisoned(num_samples, total_keep, dtype=torch.int64)
        order = poisoned(num_samples, total_keep, dtype=torch.int64)
        self._call(
            "draw",
            **_packed(cu_seqlens, len(logits)),
            logits=logits,
            keep=keep,
            total_keep=total_keep,
            num_samples=num_samples,
            seed=seed,
            num_seeds=len(seed),
            index=index,
            order=order,
        )
        return index, order

    def plackett_luce(self, logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor) -> Tensor:
        log_prob = poisoned(len(order), len(keep), dtype=torch.float32)
        self._call(
            "plackett_luce",
            **_packed(cu_seqlens, len(logits)),
            logits=logits,
            keep=keep,
            total_keep=order.shape[1],
            num_samples=len(order),
            order=order,
            rank=poisoned(len(order), len(logits), dtype=torch.int32),
            log_prob=log_prob,
        )
        return log_prob

    def plackett_luce_backward(
        self, grad: Tensor, logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor
    ) -> Tensor:
        grad_logits = poisoned(len(logits), dtype=torch.float32)
        self._call(
            "plackett_luce_backward",
            **_packed(cu_seqlens, len(logits)),
            grad=grad,
            logits=logits,
            keep=keep,
            total_keep=order.shape[1],
            num_samples=len(order),
            order=order,
            rank=poisoned(len(order), len(logits), dtype=torch.int32),
            log_shares=poisoned(*order.shape, dtype=torch.float64),
            grad_logits=grad_logits,
        )
        return grad_logits

    def sample_bernoulli(
        self, logits: Tensor, cu_seqlens: Tensor, num_samples: int, seed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        videos = len(cu_seqlens) - 1
        mask = poisoned(num_samples, len(logits), dtype=torch.uint8)
        log_prob = poisoned(num_samples, videos, dtype=torch.float32)
        count = poisoned(num_samples, videos, dtype=torch.int32)
        self._call(
            "sample_bernoulli",
            **_packed(cu_seqlens, len(logits)),
            logits=logits,
            num_samples=num_samples,
            seed=seed,
            num_seeds=len(seed),
            mask=mask,
            log_prob=log_prob,
            count=count,
        )
        assert bool((mask <= 1).all())
        return mask.bool(), log_prob, count

    def gather(self, tokens: Tensor, index: Tensor, misalignment: int = 0) -> Tensor:
        out = torch.full_like(tokens[:1], 77).expand(len(index), *tokens.shape[1:]).contiguous()
        self._call(
            "gather",
            tokens=Input(tokens, misalignment),
            num_tokens=len(tokens),
            row_bytes=math.prod(tokens.shape[1:]) * tokens.dtype.itemsize,
            index=index,
            num_rows=len(index),
            out=out,
        )
        return out

    def kept_offsets(self, cu_seqlens: Tensor, keep: Tensor) -> Tensor:
        cu_kept = poisoned(len(keep) + 1, dtype=torch.int32)
        self._call("kept_offsets", **_packed(cu_seqlens, int(cu_seqlens[-1])), keep=keep, cu_kept=cu_kept)
        return cu_kept
