"""Stills of the static split as pseudo-videos: what the curriculum's first stage sees in the miniature."""

from __future__ import annotations

import pytest
import torch

from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.reader import Reader, ReaderConfig
from score_video.miniature.world import NOT_ASKED, TASK_NAMES
from score_video.rl.curriculum import as_pseudo_video

QUADRANT = TASK_NAMES.index("quadrant")


@pytest.fixture(scope="module")
def environment() -> MiniatureEnvironment:
    torch.manual_seed(0)
    return MiniatureEnvironment(Reader(ReaderConfig(tower_width=8, token_width=8, width=12, layers=1, heads=2)))


def test_the_still_is_the_frame_that_every_frame_is(environment: MiniatureEnvironment) -> None:
    examples = MiniatureVideos("static", "train", 3, 10, still=True)
    pixels = environment.world("static", "train", 3).videos([7]).pixels[0]
    assert torch.equal(examples[7]["image"], pixels[0].permute(1, 2, 0))
    repeated = as_pseudo_video(examples[7], 0, motion="repeat")
    assert torch.equal(repeated["frames"].permute(0, 3, 1, 2), pixels)


def test_a_pseudo_video_is_encoded_in_place_of_its_own_frames(environment: MiniatureEnvironment) -> None:
    examples = MiniatureVideos("static", "train", 3, 10, still=True)
    plain = environment.encode([MiniatureVideos("static", "train", 3, 10)[n] for n in (7, 8)])
    repeated = environment.encode([as_pseudo_video(examples[7], 0, motion="repeat"), examples[8]])
    assert torch.equal(repeated.videos.tokens, plain.videos.tokens)
    panned = environment.encode([as_pseudo_video(examples[7], 0, motion="pan"), examples[8]])
    length = int(panned.videos.lengths[0])
    assert not torch.allclose(panned.videos.tokens[:length], plain.videos.tokens[:length])
    assert torch.allclose(panned.videos.tokens[length:], plain.videos.tokens[length:], atol=1e-6)


def test_a_pseudo_video_asks_what_a_moving_camera_leaves_true(environment: MiniatureEnvironment) -> None:
    examples = MiniatureVideos("static", "train", 3, 10, still=True)
    batch = environment.encode([as_pseudo_video(examples[7], 0), examples[8]])
    own = environment.world("static", "train", 3).videos([7, 8]).answers
    assert own[0, QUADRANT] != NOT_ASKED
    own[0, QUADRANT] = NOT_ASKED
    assert torch.equal(batch.payload.answers, own)
    length = int(batch.videos.lengths[0])
    assert not batch.payload.shown[:length].any() and batch.payload.shown[length:].any()


def test_only_what_stands_still_is_a_still() -> None:
    with pytest.raises(ValueError, match=r"still must be False .* lookalike"):
        MiniatureVideos("lookalike", "train", 0, 10, still=True)


def test_frames_of_another_shape_are_refused(environment: MiniatureEnvironment) -> None:
    example = as_pseudo_video(MiniatureVideos("static", "train", 0, 1, still=True)[0], 0, frames=8)
    with pytest.raises(ValueError, match=r"frames must be floating point \[16, 24, 24, 3\], got .* \[8, 24, 24, 3\]"):
        environment.encode([example])
