"""The generator against its own labels: every answer is found again in what is painted."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from score_video.miniature.world import (
    BACKGROUND,
    COLOURS,
    CROSS,
    DISC,
    FLASH,
    FLICKER,
    GLYPH,
    LIVE_THINGS,
    NOT_ASKED,
    NUM_THINGS,
    PARKED_CROSS,
    PARKED_DIAMOND,
    PARKED_DISC,
    PARKED_SQUARE,
    PARTITIONS,
    SPLITS,
    SQUARE,
    TASK_NAMES,
    TASKS,
    Videos,
    World,
    thing_counts,
)

PARKED = (
    *range(PARKED_SQUARE, PARKED_SQUARE + 4),
    *range(PARKED_DIAMOND, PARKED_DIAMOND + 4),
    PARKED_DISC,
    PARKED_CROSS,
)
NUMBER = {"long": 12}  # of videos; 64 of the others


def moving_texture() -> Tensor:
    """Stands for real footage: smooth noise that moves, float32 [90, 100, 130], 0 to 1."""
    noise = torch.rand(1, 1, 16, 40, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(noise, size=(100, 250), mode="bilinear")[0, 0]
    return torch.stack([wide[:, t : t + 130] for t in range(90)])


def world(split: str, partition: str = "test", seed: int = 5) -> World:
    footage = moving_texture() if SPLITS[split].footage else None
    return World(split, partition, seed, footage)  # type: ignore[arg-type]


@cache
def videos(split: str) -> Videos:
    return world(split).videos(range(NUMBER.get(split, 64)))


def answer(split: str, task: str, video: int) -> int:
    return int(videos(split).answers[video, TASK_NAMES.index(task)])


def shows(split: str, video: int, thing: int) -> Tensor:
    """bool [T, 24, 24]."""
    return videos(split).things[video] == thing


def centre(mask: Tensor) -> Tensor:
    """Mean (y, x) of what is True in [24, 24], float64 [2]."""
    return mask.nonzero().double().mean(0)


def colour_of(pixels: Tensor) -> str:
    """The palette's nearest to the mean of RGB pixels [n, 3]."""
    palette = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    return COLOURS[int((palette - pixels.mean(0)).norm(dim=1).argmin())]


ALL = pytest.mark.parametrize("split", list(SPLITS))


@ALL
def test_shapes_and_ranges(split: str) -> None:
    made, n, frames = videos(split), NUMBER.get(split, 64), 64 if split == "long" else 16
    assert made.pixels.shape == (n, frames, 3, 24, 24)
    assert made.pixels.dtype == torch.float32
    assert made.pixels.min() >= 0 and made.pixels.max() <= 1
    assert made.things.shape == (n, frames, 24, 24)
    assert made.things.dtype == torch.uint8
    assert made.things.max() < NUM_THINGS
    assert made.answers.shape == (n, len(TASKS))
    for column, task in enumerate(TASKS):
        assert made.answers[:, column].min() >= NOT_ASKED
        assert made.answers[:, column].max() < len(task.answers)


@ALL
def test_count_is_the_number_of_colours_whose_square_moves(split: str) -> None:
    made = videos(split)
    for video in range(len(made.pixels)):
        moved = []
        for colour in range(4):
            mask = shows(split, video, SQUARE + colour)
            there = mask.flatten(1).any(1)
            if there.any():
                first, *_, last = there.nonzero()[:, 0].tolist()
                moved.append(colour)
                assert (centre(mask[first]) - centre(mask[last])).abs().max() > 4
                assert colour_of(made.pixels[video].permute(0, 2, 3, 1)[mask]) == COLOURS[colour]
            assert bool(made.hints[video, colour]) == bool(there.any())
        if answer(split, "count", video) != NOT_ASKED:
            assert answer(split, "count", video) == len(moved)
        else:
            assert not moved


@ALL
def test_direction_is_where_the_disc_goes(split: str) -> None:
    found = set()
    for video in range(len(videos(split).pixels)):
        mask = shows(split, video, DISC)
        if answer(split, "direction", video) in (4, NOT_ASKED):
            assert not mask.any()
            continue
        seen = (mask.flatten(1).sum(1) >= 8).nonzero()[:, 0].tolist()  # the glyph and what flashes may hide it
        dy, dx = (centre(mask[seen[-1]]) - centre(mask[seen[0]])).tolist()
        way = {0: -dx, 1: dx, 2: -dy, 3: dy}
        assert max(way, key=lambda direction: way[direction]) == answer(split, "direction", video)
        assert max(way.values()) > 6
        assert min(abs(dy), abs(dx)) < 2  # across, nothing but what is hidden
        found.add(answer(split, "direction", video))
    assert found == (set() if split == "static" else {0, 1, 2, 3})


@ALL
def test_the_diamond_flashes_in_one_frame_in_its_colour(split: str) -> None:
    made = videos(split)
    for video in range(len(made.pixels)):
        mask = shows(split, video, FLASH)
        frames = mask.flatten(1).any(1).nonzero()[:, 0].tolist()
        if answer(split, "flash", video) in (4, NOT_ASKED):
            assert frames == []
            assert made.hints[video, 4] == NOT_ASKED
            continue
        assert len(frames) == 1
        assert made.hints[video, 4] == frames[0] * 8 // mask.shape[0]
        assert mask.sum() >= 12
        rgb = made.pixels[video, frames[0]].permute(1, 2, 0)[mask[frames[0]]]
        edge = rgb[rgb.min(1).values < 0.9]  # its middle is white
        assert len(edge) >= 8 and len(edge) < len(rgb)
        assert colour_of(edge) == COLOURS[answer(split, "flash", video)]
        # no parked diamond has its colour
        assert not shows(split, video, PARKED_DIAMOND + answer(split, "flash", video)).any()


@ALL
def test_the_cross_is_there_for_two_frames_and_order_says_which_came_first(split: str) -> None:
    asked = 0
    for video in range(len(videos(split).pixels)):
        crosses = shows(split, video, CROSS).flatten(1).any(1).nonzero()[:, 0].tolist()
        flashes = shows(split, video, FLASH).flatten(1).any(1).nonzero()[:, 0].tolist()
        if crosses:
            assert crosses == [crosses[0], crosses[0] + 1]
            assert videos(split).hints[video, 5] == crosses[0] * 8 // videos(split).things.shape[1]
        if crosses and flashes:
            first = "cross" if crosses[0] < flashes[0] else "diamond"
            assert TASKS[TASK_NAMES.index("order")].answers[answer(split, "order", video)] == first
            assert min(abs(cross - flashes[0]) for cross in crosses) >= 2
            asked += 1
        else:
            assert answer(split, "order", video) == NOT_ASKED
    assert asked > 0 or split == "static"


@ALL
def test_glyph_is_what_its_pixels_show(split: str) -> None:
    made = videos(split)
    for video in range(len(made.pixels)):
        mask = shows(split, video, GLYPH)
        frame = int(mask.flatten(1).sum(1).argmax())  # things that flash may lie over it
        places = mask[frame].nonzero()
        assert len(places) == 16
        y, x = places.min(0).values.tolist()
        mark = made.pixels[video, frame, 0, y : y + 4, x : x + 4]
        assert set(mark.flatten().tolist()) == {0.0, 1.0}
        inner = mark[1:3, 1:3]
        if inner.sum() == 0:
            name = "frame"
        elif (mark == mark[:, :1]).all():
            name = "across"
        elif (mark == mark[:1]).all():
            name = "upright"
        else:
            name = "chequer"
        assert TASKS[TASK_NAMES.index("glyph")].answers[answer(split, "glyph", video)] == name


@ALL
def test_tint_is_the_hue_of_the_background(split: str) -> None:
    made = videos(split)
    # red minus green, green minus blue
    hues = {"purple": (0.14, -0.14), "teal": (-0.18, 0.02), "brown": (0.08, 0.14), "grey": (0.0, -0.04)}
    for video in range(len(made.pixels)):
        rgb = made.pixels[video].permute(0, 2, 3, 1)[shows(split, video, BACKGROUND)]
        hue = torch.stack([rgb[:, 0] - rgb[:, 1], rgb[:, 1] - rgb[:, 2]], 1).median(0).values
        name = min(hues, key=lambda name: float((hue - torch.tensor(hues[name])).norm()))
        assert TASKS[TASK_NAMES.index("tint")].answers[answer(split, "tint", video)] == name


@ALL
def test_quadrant_is_where_the_disc_of_a_still_stands(split: str) -> None:
    for video in range(len(videos(split).pixels)):
        if split != "static":
            assert answer(split, "quadrant", video) == NOT_ASKED
            continue
        y, x = centre(shows(split, video, PARKED_DISC)[0]).tolist()
        assert answer(split, "quadrant", video) == 2 * (y >= 12) + (x >= 12)


@ALL
def test_what_is_parked_never_moves(split: str) -> None:
    made = videos(split)
    for video in range(len(made.pixels)):
        for thing in PARKED:
            mask = shows(split, video, thing)
            if not mask.any():
                continue
            place = mask.any(0)  # wherever it shows in some frame
            rows, columns = place.nonzero().unbind(1)
            assert max(rows.max() - rows.min(), columns.max() - columns.min()) <= 6
            # only what passes or flashes hides it: all that stands still hides the same part of it in every frame
            assert set(made.things[video][~mask & place].tolist()) <= set(LIVE_THINGS)
            # and it looks the same in all frames
            seen = torch.where(mask[:, None], made.pixels[video], torch.nan)
            spread = seen.nan_to_num(-1).amax(0) - seen.nan_to_num(2).amin(0)
            assert float(spread[:, place].abs().max()) == 0


def test_which_parked_things_there_are() -> None:
    kinds = [set(range(PARKED_SQUARE + c, PARKED_SQUARE + c + 1)) for c in range(4)] + [{PARKED_DISC}, {PARKED_CROSS}]
    for split, (low, high) in {"plain": (0, 0), "lookalike": (0.5, 0.8), "density": (0.25, 0.55)}.items():
        things = videos(split).things
        share = [
            float(torch.isin(things, torch.tensor(sorted(kind))).flatten(1).any(1).float().mean()) for kind in kinds
        ]
        assert all(low <= s <= high for s in share), (split, share)
    # a still always has its disc
    assert (videos("static").things == PARKED_DISC).flatten(1).any(1).all()


def test_stills_stand_still() -> None:
    made = videos("static")
    assert torch.equal(made.pixels, made.pixels[:, :1].expand_as(made.pixels))
    assert torch.equal(made.things, made.things[:, :1].expand_as(made.things))
    assert not torch.isin(made.things, torch.tensor([*LIVE_THINGS, FLICKER])).any()
    asked = made.answers != NOT_ASKED
    assert asked.equal(torch.tensor([t in ("glyph", "tint", "quadrant") for t in TASK_NAMES]).expand_as(asked))


def test_density_goes_from_nothing_to_everything() -> None:
    made = videos("density")
    quiet, busy = made.activity == 0, made.activity == 7
    assert 0.2 < quiet.float().mean() < 0.5
    assert 0.2 < busy.float().mean() < 0.5
    still = made.pixels[quiet]
    assert torch.equal(still, still[:, :1].expand_as(still))
    count, direction, flash = (TASK_NAMES.index(name) for name in ("count", "direction", "flash"))
    assert (made.answers[quiet][:, [count, direction, flash]] == torch.tensor([0, 4, 4])).all()
    assert (made.answers[busy][:, count] == 4).all()


@ALL
def test_activity_counts_what_moves_and_flashes(split: str) -> None:
    there = torch.stack([(videos(split).things == thing).flatten(1).any(1) for thing in LIVE_THINGS], 1)
    assert torch.equal(there.sum(1).float(), videos(split).activity)


def test_flicker_is_new_in_every_frame() -> None:
    made = videos("plain")
    number = 0
    for video in range(len(made.pixels)):
        place = shows("plain", video, FLICKER).all(0)  # where nothing ever lies over it
        if place.sum() >= 12:
            values = made.pixels[video, :, 0, place]
            assert set(values.flatten().tolist()) == {0.0, 1.0}
            assert (values[1:] != values[:-1]).any(1).all()
            number += 1
    assert number > 20


@settings(max_examples=12, deadline=None)
@given(
    split=st.sampled_from(["plain", "lookalike", "static", "density", "footage"]),
    partition=st.sampled_from(PARTITIONS),
    seed=st.integers(0, 2**40),
    indices=st.lists(st.integers(0, 2**40), min_size=1, max_size=5),
    data=st.data(),
)
def test_a_video_is_the_same_whatever_the_batch(
    split: str, partition: str, seed: int, indices: list[int], data: st.DataObject
) -> None:
    together = world(split, partition, seed).videos(indices)
    place = data.draw(st.integers(0, len(indices) - 1))
    alone = world(split, partition, seed).videos([indices[place]])
    for name in Videos.__dataclass_fields__:
        assert torch.equal(getattr(together, name)[place], getattr(alone, name)[0]), name


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**30), index=st.integers(0, 2**30))
def test_partitions_seeds_splits_and_numbers_differ(seed: int, index: int) -> None:
    made = [world("plain", partition, seed).videos([index]) for partition in PARTITIONS]
    made += [world(split, "test", seed).videos([index]) for split in ("lookalike", "static", "density")]
    made += [world("plain", "test", seed + 1).videos([index]), world("plain", "test", seed).videos([index + 1])]
    for one, other in combinations(made, 2):
        assert not torch.equal(one.pixels, other.pixels)


def test_footage_is_what_moves_behind() -> None:
    made = videos("footage")
    background = (made.things == BACKGROUND)[:, 1:] & (made.things == BACKGROUND)[:, :-1]
    change = made.pixels.diff(dim=1).abs().amax(2)
    assert all(change[video][background[video]].mean() > 0.002 for video in range(len(made.pixels)))
    # of even contrast, whatever the clip's
    luma = (made.pixels - made.pixels.flatten(3).median(3).values[..., None, None])[:, :, 0]
    spread = torch.stack([luma[video][made.things[video] == BACKGROUND].std() for video in range(len(luma))])
    assert 0.05 < spread.median() < 0.15


@pytest.mark.parametrize("partition", PARTITIONS)
def test_footage_where_it_is_needed_and_nowhere_else(partition: str) -> None:
    with pytest.raises(ValueError, match="the split footage is made over real video: give footage"):
        World("footage", partition)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only a split over real video takes footage, got some for plain"):
        World("plain", partition, 0, moving_texture())  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(15, 64, 64), (16, 63, 64), (16, 64, 63), (16, 64), (1, 16, 64, 64)])
def test_footage_that_is_too_small(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"footage must be \[frames, height, width\] of at least 16 x 64 x 64, got \["):
        World("footage", "test", 0, torch.zeros(shape))


def test_the_smallest_footage() -> None:
    made = World("footage", "test", 0, torch.rand(16, 64, 64)).videos(range(8))
    assert made.pixels.isfinite().all()
    assert World("footage", "test", 0, torch.zeros(16, 64, 64)).videos([0]).pixels.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plane", "test", 0), "split must be one of plain, lookalike, .*, got 'plane'"),
        (("plain", "testing", 0), "partition must be one of train, validation, test, got 'testing'"),
        (("plain", "test", -1), "seed must be 0 or more, got -1"),
    ],
)
def test_names_that_are_none(arguments: tuple[str, str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        World(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("patch", [3, 4, 6])
def test_what_a_patch_shows_is_counted(patch: int) -> None:
    things = videos("lookalike").things[:2]
    counts = thing_counts(things, patch)
    columns = 24 // patch
    assert counts.shape == (2, 16 * columns * columns, NUM_THINGS)
    assert (counts.sum(2) == patch * patch).all()
    for video, t, row, column in ((0, 0, 0, 0), (0, 3, 1, 2), (1, 15, columns - 1, columns - 1)):
        own = things[video, t, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        token = (t * columns + row) * columns + column
        assert counts[video, token].tolist() == torch.bincount(own.flatten().long(), minlength=NUM_THINGS).tolist()
