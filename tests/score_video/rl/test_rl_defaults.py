"""Training under another default dtype: the weights come out as under float32.

Not under another default device: torch's own optimizers and accelerate make tensors on it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import toy
from helpers.defaults import DEFAULT_DTYPES, assert_same, torch_default


class Environment(toy.ToyEnvironment):
    """Made under float32 whatever the default: what is tested is the trainer."""

    def encode(self, examples):  # type: ignore[no-untyped-def]
        with torch_default(torch.float32):
            return super().encode(examples)

    def answer(self, batch, selection, *, divergence=False):  # type: ignore[no-untyped-def]
        with torch_default(torch.float32):
            return super().answer(batch, selection, divergence=divergence)


@pytest.mark.parametrize("sampling", ["exact", "bernoulli", "counted"])
@pytest.mark.parametrize("default", DEFAULT_DTYPES, ids=str)
def test_training(default: torch.dtype, sampling: str, tmp_path: Path) -> None:
    results = []
    for number, dtype in enumerate((torch.float32, default)):
        trainer = toy.trainer(tmp_path / str(number), Environment(), sampling=sampling, max_steps=2)
        with torch_default(dtype):
            trainer.train()
        results.append(toy.weights(trainer.model))
    assert_same(results[1], results[0])
