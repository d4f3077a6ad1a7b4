"""bench.prefill: what it times is the real thing, and its arithmetic is right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

import score_ext
from bench.prefill.baselines import BASELINES, evs_index, evs_scores, vidcom2_index, vidcom2_scores
from bench.prefill.geometry import QUICK, REAL, Geometry, prefill_flops
from bench.prefill.model import Workload, make_model, make_workload
from score_ext.budget import keep_count
from score_video.compressor import Compressor
from score_video.methods import _closeness, _least_varying_half, find_method
from score_video.mllm import encode_inputs
from score_video.packed import Selection
from score_video.policy import SurprisePolicy, SurprisePolicyConfig

CPU = torch.device("cpu")
SHAPE = (32, 2, 2)
by_family = pytest.mark.parametrize("geometry", QUICK, ids=lambda geometry: geometry.family)


def workload(geometry: Geometry) -> Workload:
    torch.manual_seed(0)
    return make_workload(make_model(geometry, CPU), geometry, SHAPE, CPU)


# ---- what is timed is the real thing ----


@by_family
def test_the_prompt_is_what_the_real_path_makes(geometry: Geometry) -> None:
    with torch.no_grad():
        ours = workload(geometry)
        pixels = ours.vision(SHAPE[0]).inputs(SHAPE[0])
        real = encode_inputs(ours.model, {**ours.inputs, **pixels})
    assert real is not None
    assert torch.equal(ours.encoded.prompt.input_ids, real.prompt.input_ids)
    assert torch.equal(ours.encoded.prompt.position_ids, real.prompt.position_ids)
    assert torch.equal(ours.encoded.visuals.features.placeholders, real.visuals.features.placeholders)
    for name in ("cu_seqlens", "tokens_per_frame", "columns"):
        assert torch.equal(getattr(ours.encoded.visuals.videos, name), getattr(real.visuals.videos, name))
    mine, theirs = ours.encoded.visuals, real.visuals
    assert mine.videos.tokens.shape == theirs.videos.tokens.shape
    assert mine.videos.tokens.dtype == theirs.videos.tokens.dtype == torch.bfloat16
    assert [level.shape for level in mine.features.deepstack] == [level.shape for level in theirs.features.deepstack]
    assert (mine.fixed is None) == (theirs.fixed is None)
    if mine.fixed is not None and theirs.fixed is not None:
        assert torch.equal(mine.fixed.rows, theirs.fixed.rows)
        assert torch.equal(mine.fixed.placeholders, theirs.fixed.placeholders)
    assert dict(real.others).keys() == dict(ours.encoded.others).keys()


@by_family
def test_vision_in_chunks_of_frames_gives_the_same_features(geometry: Geometry) -> None:
    with torch.no_grad():
        ours = workload(geometry)
        vision = ours.vision(4)
        whole = torch.cat(list(vision.features(4).pooler_output)).float()
        halves = torch.cat(list(vision.features(2).pooler_output)).float()
    first = 2 * SHAPE[1] * SHAPE[2]
    torch.testing.assert_close(whole.view(-1, geometry.width)[:first], halves.view(-1, geometry.width)[:first])


@by_family
def test_all_methods_keep_equal_counts_and_the_prompt_shrinks_by_what_is_dropped(geometry: Geometry) -> None:
    with torch.no_grad():
        ours = workload(geometry)
        whole = ours.encoded.prompt.input_ids.shape[1]
        policy = SurprisePolicy(SurprisePolicyConfig(token_width=geometry.width))
        for retention in (0.25, 0.1, 0.05):
            keep = keep_count(SHAPE[0], SHAPE[1] * SHAPE[2], retention)
            chosen = [Compressor(policy, retention).select(ours.encoded.visuals.videos).index]
            chosen += [baseline.index(baseline.scores(ours.frames), keep) for baseline in BASELINES]
            for index in chosen:
                assert len(index) == keep and bool((index.diff() > 0).all())
                inputs = ours.encoded.compress(Selection(index, torch.tensor([keep], dtype=torch.int32)))
                assert inputs["attention_mask"].shape[1] == whole - 128 + keep
                assert ours.model(**inputs, logits_to_keep=1, use_cache=True).logits.shape == (1, 1, 100)


# ---- arithmetic ----


@pytest.mark.parametrize("geometry", REAL, ids=lambda geometry: geometry.name)
def test_parameters_of_the_layers_are_those_of_the_model(geometry: Geometry) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(geometry.config())
    layers: Any = model.model.language_model.layers
    matrices = [module for module in layers.modules() if isinstance(module, torch.nn.Linear)]
    assert sum(matrix.weight.numel() for matrix in matrices) == geometry.linear_parameters
    assert model.lm_head.weight.shape == (geometry.text["vocab_size"], geometry.width)


@by_family
def test_flops_are_those_that_torch_counts(geometry: Geometry) -> None:
    with torch.no_grad():
        ours = workload(geometry)
        ours.model.set_attn_implementation("eager")
        kept = torch.arange(128)
        inputs = ours.encoded.compress(Selection(kept, torch.tensor([128], dtype=torch.int32)))
        with FlopCounterMode(display=False) as counter:
            ours.model(**inputs, logits_to_keep=1, use_cache=True)
    counts = counter.get_flop_counts()
    rotary = sum(sum(of.values()) for module, of in counts.items() if module.endswith("rotary_emb"))
    prompt = inputs["attention_mask"].shape[1]
    # eager attention does the half above the diagonal too
    above = (
        2 * prompt**2 * geometry.text["num_attention_heads"] * geometry.head_dim * geometry.text["num_hidden_layers"]
    )
    assert counter.get_total_flops() - rotary == prefill_flops(geometry, prompt) + above


videos = st.tuples(st.integers(2, 8), st.integers(1, 9), st.integers(2, 24), st.integers(0, 2**31))


def random_video(shape: tuple[int, int, int, int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """[T, N, D], and the arguments of our methods that pack it."""
    frames, per_frame, width, seed = shape
    tokens = torch.randn(frames, per_frame, width, generator=torch.Generator().manual_seed(seed))
    ends = torch.tensor([0, frames * per_frame], dtype=torch.int32)
    return tokens, [tokens.flatten(0, 1), ends, torch.tensor([per_frame], dtype=torch.int32)]


@settings(max_examples=60, deadline=None)
@given(videos, st.floats(0, 1))
def test_evs_keeps_what_our_method_keeps_once_the_first_frame_fits(
    shape: tuple[int, int, int, int], part: float
) -> None:
    frames, per_frame = shape[:2]
    keep = per_frame + int(part * (frames - 1) * per_frame)
    tokens, packed = random_video(shape)
    ours = find_method("evs").index(*packed, torch.tensor([keep], dtype=torch.int32))
    theirs = evs_index(evs_scores(tokens), keep)
    # rounding may swap two that are nearly equal
    surprise = score_ext.surprise(*packed)
    torch.testing.assert_close(surprise[theirs].sort().values, surprise[ours].sort().values, rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(videos, st.floats(0, 1))
def test_vidcom2_keeps_the_least_typical_of_each_frame(shape: tuple[int, int, int, int], part: float) -> None:
    frames, per_frame = shape[:2]
    keep = frames + int(part * frames * (per_frame - 1))
    tokens, packed = random_video(shape)
    scores = vidcom2_scores(tokens)
    index = vidcom2_index(scores, keep)
    assert len(index) == keep
    half = _least_varying_half(packed[0]).view(frames, per_frame, -1)
    centres = half.mean((0, 1), keepdim=True), half.mean(1, keepdim=True)
    typicality = torch.stack([_closeness(half, centre) for centre in centres])
    torch.testing.assert_close(scores, typicality, rtol=1e-4, atol=1e-4)
    kept = torch.zeros(frames, per_frame, dtype=torch.bool)
    kept.view(-1)[index] = True
    for row, chosen in zip(scores.sum(0), kept, strict=True):
        if chosen.any() and not chosen.all():
            assert row[chosen].max() <= row[~chosen].min()


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(2, 8), st.integers(8, 16), st.integers(2, 24), st.integers(0, 2**31)))
def test_vidcom2_shares_the_budget_as_our_method_does(shape: tuple[int, int, int, int]) -> None:
    frames, per_frame = shape[:2]
    keep = frames * per_frame // 4
    tokens, packed = random_video(shape)
    ours = find_method("vidcom2").index(*packed, torch.tensor([keep], dtype=torch.int32)) // per_frame
    theirs = vidcom2_index(vidcom2_scores(tokens), keep) // per_frame
    counts = [index.bincount(minlength=frames) for index in (ours, theirs)]
    # the engine settles what rounding left over by typicality, we by what each frame is due
    assert int((counts[0] - counts[1]).abs().max()) <= 1 + frames // 2
