"""Vision towers on a part of their patches: equal to the stock tower with all others masked out, family by family."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from masked import difference
from masked_tower import PAIRS, groups_of_tokens, masked
from tiny import Family
from tiny_families import ALL
from torch import Tensor

from score_video import Compressor
from score_video.errors import ScoreError
from score_video.methods import RandomMethod
from score_video.mllm import compress_inputs, encode_inputs, gated, partial_tower
from score_video.mllm.families.general import core
from score_video.mllm.partial_tower import TokenTower
from score_video.mllm.pixels import NORMALISATION, VIDEOS
from score_video.mllm.registry import FAMILIES

pytestmark = pytest.mark.usefixtures("without_gradients")

HERE = sorted(set(ALL) & set(gated.TOKENS))
SHOWN = [[5, "image", 3, ("video", 6), 4], [7, ("video", 8), 2, ("video", 5), 3]]


@functools.cache
def family(name: str) -> Family:
    return ALL[name]()


def parts(name: str) -> tuple[Any, TokenTower, Any]:
    model, tower = family(name).model, gated.TOKENS[name]()
    return model, tower, getattr(core(model), tower.module)


def frames_of(name: str, grids: list[list[int]]) -> Tensor:
    """int64 [V, 3]; twice as many frames where two of them are one of tokens."""
    return torch.tensor(grids) * torch.tensor([2 if name in PAIRS else 1, 1, 1])


def pixels_of(name: str, grids: Tensor) -> dict[str, Tensor]:
    width = family(name).batch([[2, ("video", 2)]]).pixels["pixel_values_videos"].shape[1]
    pixels = torch.randn(int(grids.prod(1).sum()), width, generator=torch.Generator().manual_seed(1))
    inputs = {"pixel_values_videos": pixels, "video_grid_thw": grids}
    return inputs | ({"video_merge_sizes": torch.full((len(grids),), 2)} if name == "video_llama_3" else {})


def stock(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    output = core(model).get_video_features(**inputs, return_dict=True)
    deep = getattr(output, "deepstack_features", None) or ()
    return torch.cat(list(output.pooler_output)), [torch.cat(list(layer)) for layer in deep]


def some(share: float) -> Callable[[int], Tensor]:
    return lambda length: (torch.rand(length, generator=torch.Generator().manual_seed(length)) < share).nonzero()[:, 0]


CASES: dict[str, tuple[list[list[int]], Callable[[int], Tensor]]] = {
    "half": ([[6, 12, 20]], some(0.5)),
    "a tenth": ([[6, 12, 20]], some(0.1)),
    "one token": ([[6, 12, 20]], lambda length: torch.tensor([length // 2])),
    "frames without any": (
        [[6, 12, 20]],
        lambda length: torch.cat([torch.arange(3, 9), torch.arange(length - 7, length)]),
    ),
    "corners of windows": ([[6, 12, 20]], lambda length: torch.arange(0, length, 7)),
    "videos of several sizes": ([[3, 8, 12], [1, 4, 4], [4, 6, 10]], some(0.2)),
    "a video without any": ([[3, 8, 12], [2, 4, 4]], lambda length: torch.arange(0, 20, 3)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", HERE)
def test_equal_to_the_stock_tower_with_the_others_masked(name: str, case: str) -> None:
    model, partial, tower = parts(name)
    grids, kept_of = frames_of(name, CASES[case][0]), CASES[case][1]
    inputs = pixels_of(name, grids)
    kept = kept_of(len(groups_of_tokens(name, grids)))
    rows, deepstack = partial.features(model, inputs, kept)
    with masked(model, tower, grids, kept):
        want, deep = stock(model, inputs)
    torch.testing.assert_close(rows, want[kept], rtol=1e-5, atol=1e-5 * float(want.abs().max()))
    assert len(deepstack) == len(deep)
    for mine, other in zip(deepstack, deep, strict=True):
        torch.testing.assert_close(mine, other[kept], rtol=1e-4, atol=1e-5)
    if case == "a tenth":  # and it matters what is masked
        assert (rows - stock(model, inputs)[0][kept]).abs().max() > 0.05 * want.abs().max()


@pytest.mark.parametrize("name", HERE)
def test_everything_kept_is_the_stock_tower_to_the_bit(name: str) -> None:
    model, partial, _ = parts(name)
    inputs = pixels_of(name, frames_of(name, [[3, 8, 12], [4, 6, 10]]))
    want, deep = stock(model, inputs)
    rows, deepstack = partial.features(model, inputs, torch.arange(len(want)))
    assert torch.equal(rows, want)
    assert all(torch.equal(mine, other) for mine, other in zip(deepstack, deep, strict=True))


def keywords(name: str) -> list[str]:
    tower = parts(name)[2]
    found = set(partial_tower.tower_arguments(tower, torch.tensor([[2, 4, 4]]), 2, torch.arange(3)))
    gets_a_grid = gated.TOKENS[name] is partial_tower.GlmTower  # of the frames that are there
    return sorted(found - {"grid_thw"} if gets_a_grid else found)


@pytest.mark.parametrize(
    ("name", "keyword"), [(name, keyword) for name in HERE if name != "video_llama_3" for keyword in keywords(name)]
)
def test_canary_a_tower_that_does_not_know_a_keyword_fails(
    name: str, keyword: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if transformers had renamed it: an error, and never frames that attend to each other in silence."""
    model, partial, _ = parts(name)
    original = partial_tower.tower_arguments

    def renamed(*arguments: Any) -> dict[str, Any]:
        made = original(*arguments)
        if keyword == "grid_thw":
            made.pop(keyword)
        else:
            made[f"new_{keyword}"] = made.pop(keyword)
        return made

    monkeypatch.setattr(partial_tower, "tower_arguments", renamed)
    inputs = pixels_of(name, torch.tensor([[4, 8, 12]]))
    with pytest.raises((TypeError, AttributeError, RuntimeError, IndexError, KeyError, ValueError)):
        partial.features(model, inputs, torch.arange(0, 40, 3))


@pytest.mark.parametrize("halo", [0, 1])
@pytest.mark.parametrize("name", HERE)
def test_answers_are_of_the_masked_tower(name: str, halo: int) -> None:
    """From pixels to logits: the gate's choice and its halo are all that the tower sees; what is kept, the model."""
    model, _, tower = parts(name)
    batch = family(name).batch(SHOWN)
    inputs = batch.inputs("left")
    options = {"visual_layout": batch.pictures} if family(name).told else {}
    compressor = Compressor(retention=0.15, before_tower=Compressor(RandomMethod(3), 0.3), halo=halo)
    ours = encode_inputs(model, inputs, gate=compressor.gate, **options)
    assert ours is not None and ours.visuals.seen is not None
    seen = ours.visuals.seen
    assert (len(seen.encoded) > len(seen.kept.index)) == bool(halo)
    selected = ours.select(compressor)
    with masked(model, tower, inputs["video_grid_thw"], seen.encoded):
        video_features = stock(model, {n: inputs[n] for n in pixels_of(name, torch.tensor([[2, 4, 4]]))})
    whole = encode_inputs(model, inputs, **options)
    assert whole is not None
    features = whole.visuals.features
    features.rows[:] = video_features[0]
    for layer, values in zip(features.deepstack, video_features[1], strict=True):
        layer[:] = values
    mine, theirs = ours.compress(selected), whole.compress(selected)
    there = mine["attention_mask"].bool()
    assert difference(model(**mine).logits[there], model(**theirs).logits[there]) < 1e-5
    assert torch.equal(
        model.generate(**mine, max_new_tokens=4, do_sample=False),
        model.generate(**theirs, max_new_tokens=4, do_sample=False),
    )


@pytest.mark.parametrize("name", HERE)
def test_images_are_seen_whole(name: str) -> None:
    batch = family(name).batch([[5, "image", 3]])
    inputs, model = batch.inputs("left"), family(name).model
    compressor = Compressor("norm", 0.1, before_tower=Compressor("random", 0.3))
    found = compress_inputs(model, inputs, compressor)
    assert found.kept == [] and dict(found).keys() == inputs.keys()


@pytest.mark.parametrize("name", sorted(set(ALL) - set(gated.TOKENS) - set(gated.FRAMES)))
def test_other_families_are_refused_by_name(name: str) -> None:
    made = family(name)
    batch = made.batch([[2, ("video", 8)]])
    options = {"visual_layout": batch.pictures} if made.told else {}
    with pytest.raises(ScoreError, match=f"before_tower must be None for models of type '{name}': "):
        compress_inputs(
            made.model, batch.inputs("left"), Compressor("norm", 0.1, before_tower=Compressor("random", 0.3)), **options
        )


def test_every_type_named_is_a_supported_one() -> None:
    assert not set(gated.TOKENS) & set(gated.FRAMES)
    assert {*gated.TOKENS, *gated.FRAMES, *gated.REFUSED} <= set(FAMILIES)
    assert not set(gated.REFUSED) & {*gated.TOKENS, *gated.FRAMES}


def test_the_documents_table_is_of_what_there_is() -> None:
    text = (Path(__file__).parents[3] / "docs/before_the_tower.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (some \w+)[^|]*\| (.*) \|$", text, re.MULTILINE))
    assert re.findall(r"`(\w+)`", rows["some tokens"]) == sorted(gated.TOKENS)
    assert re.findall(r"`(\w+)`", rows["some frames"]) == sorted(gated.FRAMES)


@pytest.mark.parametrize("name", HERE)
def test_pixels_and_grids_that_contradict_each_other(name: str) -> None:
    """Not the pixels of something else, and not an error from somewhere inside."""
    inputs = family(name).batch([[5, ("video", 6), 4]]).inputs("left")
    pixels, grids = inputs["pixel_values_videos"], inputs["video_grid_thw"]
    gate = Compressor("random", 0.5, before_tower=Compressor("random", 0.5)).gate
    assert encode_inputs(family(name).model, inputs, gate=gate) is not None
    wrong: list[tuple[str, Any]] = [
        ("pixel_values_videos", torch.cat([pixels, pixels])),
        ("pixel_values_videos", torch.cat([pixels, pixels[:4]])),
        ("pixel_values_videos", pixels[:-4]),
        ("pixel_values_videos", pixels.double()),
        ("pixel_values_videos", pixels.long()),
        ("pixel_values_videos", pixels[None]),
        ("video_grid_thw", grids.float()),
        ("video_grid_thw", grids[0]),
    ]
    for key, value in wrong:
        with pytest.raises(ScoreError, match=rf"inputs\['{key}'\] must be"):
            encode_inputs(family(name).model, {**inputs, key: value}, gate=gate)


@pytest.mark.parametrize("before", [None, Compressor("random", 0.5)])
def test_a_normalisation_that_cannot_be(before: Compressor | None) -> None:
    own = family("qwen2_5_vl")
    inputs = dict(own.batch([[5, ("video", 6), 4]]).inputs("left"))
    gate = Compressor("random", 0.5, before_tower=before).gate
    bytes_ = torch.randint(0, 256, inputs[VIDEOS].shape, dtype=torch.uint8)
    right = torch.tensor([[122.77, 116.75, 104.09], [68.5, 66.63, 70.32]])
    assert encode_inputs(own.model, {**inputs, VIDEOS: bytes_, NORMALISATION: right}, gate=gate) is not None
    for wrong in (right[0], right[:, :1], torch.ones(2, 4), right.tolist(), right.long()):
        with pytest.raises(ScoreError, match=r"inputs\['pixel_normalisation'\] must be float \[2, 3\], got"):
            encode_inputs(own.model, {**inputs, VIDEOS: bytes_, NORMALISATION: wrong}, gate=gate)
    with pytest.raises(ScoreError, match=r"inputs\['pixel_values_videos'\] must be uint8 .* beside"):
        encode_inputs(own.model, {**inputs, NORMALISATION: right}, gate=gate)
