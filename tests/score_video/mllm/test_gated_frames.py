"""A choice before dense towers, of whole frames; and thumbnails, which it goes by."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Family
from tiny_families import ALL

from score_video import Compressor, thumbnails
from score_video.errors import ScoreError
from score_video.methods import RandomMethod
from score_video.mllm import encode_inputs, gated

pytestmark = pytest.mark.usefixtures("without_gradients")

HERE = sorted(set(ALL) & set(gated.FRAMES))


@functools.cache
def family(name: str) -> Family:
    return ALL[name]()


@pytest.mark.parametrize("name", HERE)
def test_frames_are_those_of_the_whole_tower(name: str) -> None:
    """Kept tokens are whole frames, equal to the bit or nearly; the others are those of the frame seen last; images and
    newlines are as they were."""
    made = family(name)
    batch = made.batch([[5, "image", 3, ("video", 8), 4], [7, ("video", 8), 2]])
    inputs, options = batch.inputs("left"), {"visual_layout": batch.pictures} if made.told else {}
    whole = encode_inputs(made.model, inputs, **options)
    compressor = Compressor("uniform", 0.2, before_tower=Compressor(RandomMethod(5), 0.4))
    ours = encode_inputs(made.model, inputs, gate=compressor.gate, **options)
    assert whole is not None and ours is not None and ours.visuals.seen is not None
    seen, per_frame = ours.visuals.seen, int(ours.visuals.videos.tokens_per_frame[0])
    assert seen.kept.keep.tolist() == [3 * per_frame] * 2
    frames = seen.kept.index.view(-1, per_frame)
    assert (frames % per_frame == torch.arange(per_frame)).all() and torch.equal(seen.encoded, seen.kept.index)
    mine, theirs = ours.visuals.videos.tokens, whole.visuals.videos.tokens
    torch.testing.assert_close(mine[seen.kept.index], theirs[seen.kept.index])
    numbers = (frames[:, 0] // per_frame).tolist()
    for frame in range(16):
        own = [n for n in numbers if n // 8 == frame // 8]
        source = max((n for n in own if n <= frame), default=min(own))
        expected = theirs[source * per_frame : (source + 1) * per_frame]
        torch.testing.assert_close(mine[frame * per_frame : (frame + 1) * per_frame], expected)
    assert (ours.visuals.fixed is None) == (whole.visuals.fixed is None)
    if ours.visuals.fixed is not None and whole.visuals.fixed is not None:
        torch.testing.assert_close(ours.visuals.fixed.rows, whole.visuals.fixed.rows)
    short = ours.compress(ours.select(compressor))
    with pytest.raises(ScoreError, match=r"selected.index must be of tokens that were chosen before"):
        ours.compress(whole.select(Compressor("uniform", 0.2)))
    assert short.selected is not None
    full = whole.compress(short.selected)
    there = short["attention_mask"].bool()
    torch.testing.assert_close(made.model(**short).logits[there], made.model(**full).logits[there])


@pytest.mark.parametrize("name", HERE)
def test_a_halo_around_whole_frames_is_refused(name: str) -> None:
    made = family(name)
    gate = Compressor("uniform", 0.2, before_tower=Compressor("random", 0.4), halo=1).gate
    with pytest.raises(ScoreError, match=f"halo must be 0 for models of type '{name}'"):
        encode_inputs(made.model, made.batch([[2, ("video", 8)]]).inputs("left"), gate=gate)


def of_tokens(pixels: torch.Tensor, frames: int = 4) -> Any:
    patches = torch.arange(len(pixels)).view(-1, 4)
    return thumbnails.of_tokens(pixels, 4, patches, [(frames, 2, len(patches) // frames // 2)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.sampled_from([1, 2]))
def test_bytes_and_a_processors_pixels_give_the_same(seed: int, frames: int) -> None:
    """Whatever means and deviations a processor normalised with, colour by colour."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (4 * 4 * 6, 3, frames, 4, 4), dtype=torch.uint8, generator=generator)
    mean, deviation = torch.rand(2, 3, 1, 1, 1, generator=generator)
    normalised = (pixels / 255 - mean) / (deviation + 0.1)
    mine, theirs = of_tokens(pixels.flatten(1)).tokens, of_tokens(normalised.flatten(1)).tokens
    assert mine.shape == (24, 48)
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_where_the_numbers_of_a_thumbnail_stand() -> None:
    """One bright cell: the third patch of the sixth token, its upper right, in green, in both frames of the patch."""
    pixels = torch.zeros(96, 3, 2, 4, 4)
    pixels[5 * 4 + 2, 1, :, :2, 2:] = 1
    found = of_tokens(pixels.flatten(1)).tokens.view(24, 3, 4, 2, 2)
    bright = found > found.min() + 1
    assert bright.nonzero().tolist() == [[5, 1, 2, 0, 1]]
    assert found[:, 1].mean().abs() < 1e-5 and (found[:, 1].square().mean() - 1).abs() < 1e-3
    assert not found[:, 0].any() and not found[:, 2].any()  # of one colour: nothing, and no noise


def test_a_video_does_not_depend_on_its_neighbours() -> None:
    pixels = torch.randn(96, 96, generator=torch.Generator().manual_seed(0))
    patches = torch.arange(192).view(-1, 4)
    both = thumbnails.of_tokens(torch.cat([pixels, pixels * 3 + 1]), 4, patches, [(4, 2, 3)] * 2).tokens
    alone = of_tokens(pixels).tokens
    assert torch.equal(both[:24], alone)
    torch.testing.assert_close(both[24:], alone)
