"""``generate(use_cache=False)`` on compressed inputs: gaps between kept tokens are not taken for packed sequences.

``generate`` drops a mask that is 1 all over, and without a cache transformers then looks for borders in the positions.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from masked import TOLERANCE, difference
from tiny import Family, Prompts
from tiny_families import ALL
from torch import Tensor

from score_video.compressor import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import CompressedInputs, compress_inputs
from score_video.mllm.families.general import core

pytestmark = pytest.mark.usefixtures("without_gradients")

FAMILIES = ALL
ONE: Prompts = [[5, ("video", 4), 6]]
ALIKE: Prompts = [[5, ("video", 4), 6], [7, ("video", 4), 8]]  # no padding: the mask of a batch is dropped as well

INDEXED = ("dots3_note", "hy_v4_vl")
"""Whose stock models go on differently without a cache, by whole prompts as well (transformers 5.24)."""

made = functools.cache(lambda name: FAMILIES[name]())
gapped = pytest.mark.parametrize("name", [name for name in ("molmo2", "muse_spark") if name in FAMILIES])


def shortened(family: Family, prompts: Prompts) -> CompressedInputs:
    batch = family.batch(prompts)
    told = batch.pictures if family.told else None
    return compress_inputs(family.model, batch.inputs(), Compressor(RandomMethod(3), 0.3), visual_layout=told)


def answer(family: Family, inputs: CompressedInputs, **options: Any) -> Tensor:
    """Logits of four steps."""
    options = {"max_new_tokens": 4, "do_sample": False, **options}
    return torch.stack(
        family.model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True).logits
    )


@pytest.mark.parametrize("prompts", [ONE, ALIKE], ids=["one", "alike"])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "ernie4_5_vl_moe"])  # whose stock model fails
def test_the_answer_is_that_with_a_cache(name: str, prompts: Prompts) -> None:
    inputs = shortened(made(name), prompts)
    steps = 1 if name in INDEXED else 4
    without, cached = answer(made(name), inputs, use_cache=False), answer(made(name), inputs)
    assert difference(without[:steps], cached[:steps]) <= 2 * TOLERANCE


@gapped
def test_nothing_stays_on_the_model(name: str) -> None:
    family, inputs = made(name), shortened(made(name), ONE)
    hooks = core(family.model)._forward_pre_hooks
    answer(family, inputs)
    assert not hooks
    for _ in range(3):
        dict(inputs)
    assert len(hooks) == 1
    family.model(**inputs, use_cache=False)
    assert not hooks
    answer(family, inputs, use_cache=False)
    family.model(input_ids=torch.tensor([[5, 6, 7]]))
    assert not hooks


@gapped
def test_a_model_that_expects_a_prompt_can_be_copied(name: str) -> None:
    family = FAMILIES[name]()
    inputs = shortened(family, ONE)
    wanted = answer(family, inputs)
    arguments = dict(inputs)
    double = copy.deepcopy(family.model)
    assert difference(double(**arguments).logits[:, -1], wanted[0]) <= TOLERANCE
    assert not core(double)._forward_pre_hooks
    assert len(core(family.model)._forward_pre_hooks) == 1
