"""The order of examples, the stages and the seeds: functions of the step alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from score_video.rl.curriculum import (
    Item,
    Schedule,
    ScheduledExamples,
    Stage,
    as_pseudo_video,
    collate,
    data_of_stages,
    parse_stages,
    video_seed,
)


def numbered(count: int, name: str = "n") -> list[Mapping[str, Any]]:
    return [{"id": f"{name}{i}"} for i in range(count)]


def ids(examples: ScheduledExamples, first: int = 0, last: int | None = None) -> list[str]:
    return [examples[i][0]["id"] for i in range(first, len(examples) if last is None else last)]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32))
def test_every_epoch_sees_every_example_once(size: int, batch: int, iterations: int, rollouts: int, seed: int) -> None:
    schedule = Schedule([Stage("video")], rollouts * iterations)
    examples = ScheduledExamples([numbered(size)], schedule, batch, iterations, seed)
    seen = ids(examples)
    assert len(seen) == rollouts * iterations * batch
    # the steps of a rollout share its examples and seeds
    per_rollout = batch * iterations
    fresh: list[str] = []
    for rollout in range(rollouts):
        steps = [seen[rollout * per_rollout + i * batch :][:batch] for i in range(iterations)]
        assert all(step == steps[0] for step in steps)
        fresh += steps[0]
    for epoch in range(len(fresh) // size):
        assert sorted(fresh[epoch * size : (epoch + 1) * size]) == sorted(e["id"] for e in numbered(size))


def test_order_depends_on_the_seed_and_the_epoch_and_not_on_what_was_read_before() -> None:
    def make(seed: int) -> ScheduledExamples:
        return ScheduledExamples([numbered(50)], Schedule([Stage("video")], 10), 10, 1, seed)

    whole = ids(make(3))
    assert ids(make(3), 37, 61) == whole[37:61]
    assert whole[:50] != whole[50:]
    assert whole != ids(make(4))
    assert sorted(whole[:50]) != whole[:50]


def test_stages_follow_the_step() -> None:
    stages = parse_stages([{"name": "video", "steps": 4, "retention": 0.2}, {"name": "video"}], num_iterations=2)
    schedule = Schedule(stages, 10)
    assert [schedule.number_at(step) for step in range(10)] == [0] * 4 + [1] * 6
    examples = ScheduledExamples([numbered(2, "a"), numbered(3, "b")], schedule, 3, 2, 0)
    seen = ids(examples)
    assert all(name.startswith("a") for name in seen[:12])
    assert sorted(seen[12:15]) == ["b0", "b1", "b2"]  # the new stage starts with an epoch of its own
    assert all(name.startswith("b") for name in seen[12:])


def test_seeds_differ_and_are_what_they_were() -> None:
    examples = ScheduledExamples([numbered(2)], Schedule([Stage("video")], 20), 10, 1, 5)
    seeds = [examples[i][1] for i in range(len(examples))]
    assert len(set(seeds)) == 200
    assert seeds[37] == video_seed(5, 3, 7)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # a checkpoint of today is resumed by the release of tomorrow
    assert video_seed(0, 0, 0) == 7896617691693857887
    assert video_seed(42, 7, 3) == 8545672181732416458


def test_collate_keeps_examples_whole() -> None:
    drawn = collate([Item({"id": "a", "frames": torch.zeros(2)}, 3, 7), Item({"id": "b"}, 4, 8)])["drawn"]
    assert [example["id"] for example in drawn.examples] == ["a", "b"]
    assert (drawn.seeds, drawn.items) == ([3, 4], [7, 8])


def test_pseudo_videos_of_every_kind_of_still(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (5, 4, 3), dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    picture.save(tmp_path / "still.png")
    for image in (pixels, pixels.numpy(), picture, tmp_path / "still.png", str(tmp_path / "still.png")):
        example = as_pseudo_video({"id": "x", "image": image, "video": None}, 7, frames=3, motion="repeat")
        assert set(example) == {"id", "frames"}
        assert torch.equal(example["frames"], pixels.expand(3, 5, 4, 3))
    grey = as_pseudo_video({"image": picture.convert("L")}, 0, frames=1, motion="repeat")
    assert grey["frames"].shape == (1, 5, 4, 3)
    frames = torch.stack([pixels, 255 - pixels])
    stills = [as_pseudo_video({"frames": frames}, seed, frames=2, motion="repeat")["frames"][0] for seed in (4, 5)]
    assert torch.equal(stills[0], frames[0])
    assert torch.equal(stills[1], frames[1])
    assert torch.equal(
        as_pseudo_video({"frames": np.asarray(frames)}, 4)["frames"], as_pseudo_video({"frames": frames}, 4)["frames"]
    )


def test_a_stage_passes_its_options_and_seed_on() -> None:
    stages = parse_stages([{"name": "pseudo_video", "frames": 5, "motion": "noise"}])
    data = [{"image": torch.full((4, 4, 3), 0.5)}]
    examples = ScheduledExamples([data], Schedule(stages, 3), 2, 1, 1)
    first, second = examples[0][0]["frames"], examples[1][0]["frames"]
    assert first.shape == (5, 4, 4, 3)
    assert not torch.equal(first, second)
    assert torch.equal(first, examples[0][0]["frames"])


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "at least one stage"),
        ("video", "at least one stage"),
        (["video"], r"stages\[0\] must be a mapping"),
        ([{"name": "film"}], r"stages\[0\]: name must be one of pseudo_video, video, got 'film'"),
        ([{"name": "video"}, {"name": "video"}], r"stages\[0\]: steps must be given"),
        ([{"name": "video", "steps": 0}], "at least 1, got 0"),
        ([{"name": "video", "steps": True}], "at least 1, got True"),
        ([{"name": "video", "steps": 3}], r"multiple of num_iterations \(2\), got 3"),
        ([{"name": "video", "retention": 1.5}], r"retention must be a number in \(0, 1\], got 1.5"),
        ([{"name": "video", "data": 3}], "data must be the name of a training data set, got 3"),
        ([{"name": "video", "motion": "pan"}], "no option 'motion'; there are name, steps, retention, data"),
        (
            [{"name": "pseudo_video", "motoin": "pan"}],
            "no option 'motoin'; there are name, steps, retention, data, frames",
        ),
    ],
)
def test_bad_stages(stages: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_stages(stages, num_iterations=2)


def test_data_of_each_stage() -> None:
    a, b = numbered(1, "a"), numbered(1, "b")
    stages = parse_stages([{"name": "video", "steps": 1, "data": "still"}, {"name": "video"}])
    assert data_of_stages(stages, {"video": a, "still": b}) == [b, a]
    assert data_of_stages([Stage("video")], a) == [a]
    with pytest.raises(ValueError, match="must have the data sets still, video, as the stages do, got still"):
        data_of_stages(stages, {"still": a})
    with pytest.raises(ValueError, match="got still, video, more"):
        data_of_stages(stages, {"still": a, "video": a, "more": b})
    with pytest.raises(ValueError, match="by name for the stage with data 'still', got one"):
        data_of_stages(stages, a)


def test_stages_must_fit_the_steps() -> None:
    with pytest.raises(ValueError, match="last max_steps steps in all, got 5 of 6"):
        Schedule([Stage("video", 2), Stage("video", 3)], 6)
    with pytest.raises(ValueError, match="leave some of the 6 steps"):
        Schedule([Stage("video", 6), Stage("video")], 6)
    with pytest.raises(ValueError, match="must have examples for the stage video, got none"):
        ScheduledExamples([[]], Schedule([Stage("video")], 6), 2)
    with pytest.raises(ValueError, match=r"example a of the stage pseudo_video must have an image or frames"):
        as_pseudo_video({"id": "a", "video": "a.mp4"}, 0)
