"""The acceptance tests of families with linear, windowed or indexed attention, and of those that count positions anew.

What these compute depends on how many tokens lie between two, so that a compressed prompt cannot be equal to the whole
one with tokens masked. It is equal to what the stock model makes of the same embeddings and positions, cut by hand
(by_hand.py).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from by_hand import ByHand, by_hand
from masked import TOLERANCE, compress, difference, dropped
from test_exactness import BATCHES, RAGGED
from tiny import Family, Prompts
from tiny_families import SHORTENED

from score_video.compressor import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import CompressedInputs, encode_inputs

COUNTED = ("exaone4_5", "hyperclovax_vision_v2", "minimax_m3_vl")  # what is kept is numbered anew
TYPED = ("gemma4", "gemma4_unified")  # read token types when they begin
STACKED = ("nemotron_h_omni",)  # its processor wants equally long videos
OVER_TIME = ("minimax_m3_vl",)
DEEP = ("cohere_compass",)

made = functools.cache(lambda name: SHORTENED[name]())


@pytest.fixture(params=SHORTENED)
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    with torch.no_grad():
        yield made(request.param)


def both(family: Family, prompts: Prompts, side: str = "left") -> tuple[CompressedInputs, ByHand]:
    """A random third of the videos' tokens is kept."""
    batch, kind = family.batch(prompts), family.model.config.model_type
    compressed = compress(family, batch, Compressor(RandomMethod(3), 0.3), side).compressed
    gone = dropped(batch, compressed.kept)
    types = ("mm_token_type_ids",) if kind in TYPED else ()
    return compressed, by_hand(family.model, batch.inputs(), gone, types, kind in COUNTED)


def answer(model: Any, inputs: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"max_new_tokens": 6, "do_sample": False, **options}
    return model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)


@pytest.mark.parametrize("batch", BATCHES)
def test_retention_1_is_the_stock_model(family: Family, batch: str) -> None:
    stock = family.batch(BATCHES[batch]).inputs()
    compressed = compress(family, family.batch(BATCHES[batch]), Compressor("uniform", 1.0)).compressed
    ours, plain = answer(family.model, compressed), answer(family.model, stock)
    assert difference(ours.logits, plain.logits) <= TOLERANCE


@pytest.mark.parametrize("batch", BATCHES)
def test_a_shorter_prompt_is_the_stock_models_own(family: Family, batch: str) -> None:
    compressed, hand = both(family, BATCHES[batch])
    ours = answer(family.model, compressed)
    prompt, steps = hand.logits(ours.sequences[:, compressed.prompt_length :])
    mask = compressed["attention_mask"].bool()
    assert torch.equal(mask, hand.mask.bool())
    assert difference(family.model(**compressed).logits[mask], prompt) <= TOLERANCE
    assert len(ours.logits) == 6
    assert difference(torch.stack(ours.logits), steps) <= TOLERANCE


def test_the_dropped_tokens_matter(family: Family) -> None:
    compressed, _ = both(family, BATCHES["padded"])
    whole = family.model(**family.batch(BATCHES["padded"]).inputs()).logits[:, -1]
    assert difference(family.model(**compressed).logits[:, -1], whole) > 0.01


def test_videos_of_different_lengths(family: Family) -> None:
    if family.model.config.model_type in STACKED:
        pytest.skip("its processor wants equally long videos")
    compressed, hand = both(family, RAGGED)
    prompt, _ = hand.logits()
    assert difference(family.model(**compressed).logits[compressed["attention_mask"].bool()], prompt) <= TOLERANCE


def test_right_padding(family: Family) -> None:
    """What comes back is padded on the left all the same."""
    right, hand = both(family, BATCHES["padded"], side="right")
    ours = answer(family.model, right)
    _, steps = hand.logits(ours.sequences[:, right.prompt_length :])
    assert difference(torch.stack(ours.logits), steps) <= TOLERANCE


def test_several_answers(family: Family) -> None:
    if family.model.config.model_type in DEEP:
        pytest.skip("by hand, features of later layers are not repeated")
    compressed, hand = both(family, BATCHES["padded"])
    ours = answer(family.model, compressed, num_return_sequences=2, do_sample=True)
    _, steps = hand.repeat(2).logits(ours.sequences[:, compressed.prompt_length :])
    assert difference(torch.stack(ours.logits), steps) <= TOLERANCE


@pytest.mark.parametrize("options", [{"num_return_sequences": 3, "do_sample": True}, {"num_beams": 3}])
def test_beams_begin_where_their_prompt_ends(family: Family, options: dict[str, Any]) -> None:
    compressed, hand = both(family, BATCHES["mixed"])
    ours = answer(family.model, compressed, max_new_tokens=2, **options)
    _, steps = hand.logits()
    assert difference(ours.logits[0], steps[0].repeat_interleave(3, 0)) <= TOLERANCE


def test_features_stand_in_the_order_of_time_and_space(family: Family) -> None:
    """A video's tokens are frame-major: one changed frame changes the tokens of that frame, and no others."""
    if family.model.config.model_type in OVER_TIME:
        pytest.skip("its tower attends over time")
    batch = family.batch(BATCHES["one"])
    inputs = batch.inputs()
    other = inputs["pixel_values_videos"].clone()
    if family.model.config.model_type.startswith("minicpm"):  # patches stand side by side
        other.view(3, 4, 4, -1)[:, :, 2] *= -1
    else:
        other.view(4, -1)[2] *= -1  # a view: one prompt, one video of four frames
    layout = batch.pictures if family.told else None
    before, after = (
        encode_inputs(family.model, {**inputs, "pixel_values_videos": pixels}, visual_layout=layout)
        for pixels in (inputs["pixel_values_videos"], other)
    )
    assert before is not None and after is not None
    videos = after.visuals.videos
    changed = (before.visuals.videos.tokens - videos.tokens).abs().amax(1) > 1e-6
    frame = int(videos.tokens_per_frame)
    newlines = int(family.model.config.model_type == "hy_v4_vl")
    places = range(2 * frame, 3 * frame)
    assert changed.nonzero().flatten().tolist() == [n for n in places if not newlines or n % 4 != 3]
    assert frame * 4 == len(batch.places[0])


def test_compressed_inputs_can_be_used_twice(family: Family) -> None:
    compressed, _ = both(family, BATCHES["mixed"])
    first = answer(family.model, compressed)
    family.model.generate(**compressed, max_new_tokens=2, num_beams=2)
    again = answer(family.model, compressed)
    assert torch.equal(torch.stack(first.logits), torch.stack(again.logits))


def test_a_later_turn(family: Family) -> None:
    """It goes on from the cache of the first, as docs/models.md has it; by hand token by token."""
    compressed, hand = both(family, BATCHES["padded"])
    first = answer(family.model, compressed)
    name = "cache" if "cache" in first else "past_key_values"
    said = first.sequences[:, compressed.prompt_length :]
    text = torch.tensor([[30, 31, 32]]).expand(len(said), -1)
    mask = torch.cat([compressed["attention_mask"], torch.ones_like(said), torch.ones_like(text)], 1)
    given = {"input_ids": torch.cat([said[:, -1:], text], 1), "attention_mask": mask, name: first[name]}
    second = answer(family.model, given)
    new = second.sequences[:, given["input_ids"].shape[1] :]
    _, steps = hand.logits(torch.cat([said, text, new], 1))
    assert (
        difference(torch.stack(second.logits), steps[-len(second.logits) :]) <= 1e-5
    )  # chunks round otherwise than steps
