"""The backward pass of the policy's network, a block of rows at a time: what both states' gradients share."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_ROWS = 4096
"""Rows handled at a time: bounds the memory of a backward pass as the forward pass's blocks do."""


def zeros(like: Tensor | None, device: torch.device) -> Tensor:
    """float32. A new empty tensor for each that is not there: an op's results must not be one another."""
    return torch.zeros(0 if like is None else like.shape, dtype=torch.float32, device=device)


def empty_gradients(
    like: Tensor, w1: Tensor, b1: Tensor, w2: Tensor | None, b2: Tensor | None, w_out: Tensor
) -> list[Tensor]:
    """What :attr:`NetworkBackward.gradients` is in shape and dtype, for fakes."""
    shapes = [0 if tensor is None else tensor.shape for tensor in (w1, b1, w2, b2, w_out)]
    return [like.new_empty(shape, dtype=w1.dtype) for shape in (*shapes, 1)]


class NetworkBackward:
    """Gradients of the weights, added up over blocks of rows."""

    def __init__(self, w1: Tensor, b1: Tensor, w2: Tensor | None, b2: Tensor | None, w_out: Tensor) -> None:
        self.w1, self.b1, self.w_out = _aligned(w1), _aligned(b1), _aligned(w_out)
        self.w2, self.b2 = None if w2 is None else _aligned(w2), None if b2 is None else _aligned(b2)
        w_sums = [zeros(tensor, w1.device) for tensor in (w1, b1, w2, b2, w_out)]
        self._sums = [*w_sums, torch.zeros(1, dtype=torch.float32, device=w1.device)]

    @property
    def gradients(self) -> list[Tensor]:
        """Of w1, b1, w2, b2, w_out and b_out, in their dtype; empty tensors for what is not there."""
        return [total.to(self.w1.dtype) for total in self._sums]

    def add(self, grad: Tensor, state: Tensor) -> Tensor:
        """Adds a block's share.

        Args:
            grad: float32 [rows], of the logits.
            state: [rows, S], in the dtype of the weights.

        Returns:
            The gradient before the first GELU, [rows, H1]: times w1 it is that of the state.
        """
        grad_w1, grad_b1, grad_w2, grad_b2, grad_w_out, grad_b_out = self._sums
        before1 = torch.nn.functional.linear(state, self.w1, self.b1)  # [rows, H1]
        hidden1 = torch.nn.functional.gelu(before1)
        hidden = hidden1
        if self.w2 is not None:
            before2 = torch.nn.functional.linear(hidden1, self.w2, self.b2)  # [rows, H2]
            hidden = torch.nn.functional.gelu(before2)
        above = grad[:, None].to(self.w1.dtype)  # [rows, 1]
        grad_w_out += above.T @ hidden
        grad_b_out += above.float().sum(0)
        above = above @ self.w_out
        if self.w2 is not None:
            above = torch.ops.aten.gelu_backward(above, before2)
            grad_w2 += above.T @ hidden1
            grad_b2 += above.float().sum(0)
            above = above @ self.w2
        above = torch.ops.aten.gelu_backward(above, before1)
        grad_w1 += above.T @ state
        grad_b1 += above.float().sum(0)
        return above


def _aligned(weight: Tensor) -> Tensor:
    """The weight as the forward pass has it: csrc/network.cpp says why."""
    weight = weight.contiguous()
    return weight if weight.data_ptr() % 64 == 0 else weight.clone()
