"""FlashAttention on compressed prompts: dropped tokens leave no borders, and logits are those of masking by sdpa.

Positions with gaps can be taken for those of several sequences in a row. The kernels' functions here are plain torch
(flash.py); what decides what reaches them is transformers itself. tests/gpu has the real kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from flash import flash_attention
from masked import TOLERANCE, Pair, compress, difference
from tiny import Family, Prompts
from tiny_families import MASKED as FAMILIES

from score_video.compressor import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import CompressedInputs, compress_inputs

CLIP = ("video", 4)
BATCHES: dict[str, Prompts] = {"one": [[5, CLIP, 6]], "padded": [[5, CLIP, 6], [2, CLIP, 3, CLIP, 4], [9, CLIP, 3]]}
THIRD = Compressor(RandomMethod(3), 0.3)

made = functools.cache(lambda name: FAMILIES[name]())


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    if not made(request.param).model._supports_flash_attn:
        pytest.skip("the stock model does not run with it")
    with torch.no_grad():
        yield made(request.param)


def compressed_anew(family: Family, batch: str) -> CompressedInputs:
    """While the model runs with FlashAttention: what is handed over goes by that."""
    written = family.batch(BATCHES[batch])
    return compress_inputs(
        family.model, written.inputs(), THIRD, visual_layout=written.pictures if family.told else None
    )


def check_no_borders(calls: Any, pair: Pair) -> None:
    """Each prompt is one sequence to the kernels, in every layer and step."""
    lengths = pair.compressed["attention_mask"].sum(1).tolist()
    assert calls
    for queries, keys in calls:
        assert len(queries) == len(keys) == len(lengths) + 1
    prefill = torch.tensor(calls[0][0]).diff().tolist()
    assert prefill == lengths


@pytest.mark.parametrize("batch", BATCHES)
def test_forward(family: Family, batch: str) -> None:
    pair = compress(family, family.batch(BATCHES[batch]), THIRD)
    real = pair.masked["attention_mask"].bool()
    wanted = family.model(**pair.masked).logits[real]
    for cached in (True, False):
        with flash_attention(family.model) as calls:
            compressed = compressed_anew(family, batch)
            ours = family.model(**compressed, use_cache=cached).logits
        check_no_borders(calls, pair)
        assert difference(ours[compressed["attention_mask"].bool()], wanted) <= TOLERANCE


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"num_return_sequences": 2, "do_sample": True}], ids=str)
@pytest.mark.parametrize("batch", BATCHES)
def test_generate(family: Family, batch: str, options: dict[str, Any]) -> None:
    if options and not family.mixes:
        pytest.skip("the stock model does not give several answers about a video")
    pair = compress(family, family.batch(BATCHES[batch]), THIRD)
    options = {"max_new_tokens": 5, "do_sample": False, **options}
    answers = []
    for flash in (True, False):
        torch.manual_seed(0)
        given = dict(**options, output_logits=True, return_dict_in_generate=True)
        if not flash:
            answers.append(family.model.generate(**pair.compressed, **given))  # by sdpa: see test_exactness.py
            continue
        with flash_attention(family.model) as calls:
            compressed = compressed_anew(family, batch)
            answers.append(family.model.generate(**compressed, **given))
        if len(options) == 2:
            check_no_borders(calls, pair)
    assert difference(answers[0].logits, answers[1].logits) <= 5 * TOLERANCE
    assert torch.equal(answers[0].sequences[:, -5:], answers[1].sequences[:, -5:])


def test_wrapped(family: Family) -> None:
    batch = family.batch(BATCHES["one"])
    told = {"visual_layout": batch.pictures} if family.told else {}
    answers = []
    for flash in (True, False):
        with THIRD.wrap(family.model):
            if flash:
                with flash_attention(family.model):
                    answers.append(family.model.generate(**batch.inputs(), **told, max_new_tokens=5, do_sample=False))
            else:
                answers.append(family.model.generate(**batch.inputs(), **told, max_new_tokens=5, do_sample=False))
    assert torch.equal(*answers)


def test_borders_would_be_seen() -> None:
    """What is feared: positions that begin anew are several sequences to the kernels."""
    family = made("llava_onevision")
    with torch.no_grad(), flash_attention(family.model) as calls:
        ids = torch.full((1, 9), 20)
        family.model(input_ids=ids, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]))
    assert calls[0] == ([0, 4, 9], [0, 4, 9])
