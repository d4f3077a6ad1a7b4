"""A choice before the vision tower, without a tower: halos, what is filled in, what is refused, saved and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.waits import Waits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from score_ext.budget import keep_count
from score_video import Compressor, PackedVideos, SurprisePolicy, SurprisePolicyConfig
from score_video.before_tower import WHOLE_FIRST_FRAME, Gate, Seen, fill_sources, filled, only, with_halo
from score_video.compressor import NEEDS_NO_PLACES, AdaptiveRetention
from score_video.errors import ScoreError
from score_video.methods import METHODS, RandomMethod
from score_video.packed import Selection, check_selection

sizes = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=3)


def made(grids: list[tuple[int, int, int]], seed: int, width: int = 6) -> PackedVideos:
    generator = torch.Generator().manual_seed(seed)
    length = sum(t * h * w for t, h, w in grids)
    return PackedVideos.from_grids(torch.randn(length, width, generator=generator), grids)


def some_of(videos: PackedVideos, seed: int, share: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(len(videos.tokens), generator=generator) < share).nonzero()[:, 0]


def places(grids: list[tuple[int, int, int]]) -> list[tuple[int, int, int, int]]:
    """(video, frame, row, column) of each token."""
    return [(v, t, y, x) for v, (T, H, W) in enumerate(grids) for t in range(T) for y in range(H) for x in range(W)]


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 3), st.integers(0, 99))
def test_halo_is_what_so_many_steps_reach(grids: list[tuple[int, int, int]], rings: int, seed: int) -> None:
    videos = made(grids, seed)
    index = some_of(videos, seed, 0.2)
    place = places(grids)
    near = [
        row
        for row, (v, t, y, x) in enumerate(place)
        if any((v, t) == place[i][:2] and abs(y - place[i][2]) + abs(x - place[i][3]) <= rings for i in index.tolist())
    ]
    assert with_halo(videos, index, rings).tolist() == near


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 99))
def test_what_was_not_seen_is_as_last_seen(grids: list[tuple[int, int, int]], seed: int) -> None:
    videos = made(grids, seed)
    index = some_of(videos, seed)
    place = places(grids)
    want = []
    for v, t, y, x in place:
        at_place = {place[i][1]: n for n, i in enumerate(index.tolist()) if place[i][0] == v and place[i][2:] == (y, x)}
        earlier, later = [s for s in at_place if s <= t], [s for s in at_place if s > t]
        want.append(at_place[max(earlier)] if earlier else at_place[min(later)] if later else -1)
    sources = fill_sources(videos, index)
    assert sources.tolist() == want
    rows = videos.tokens[index]
    dense = filled(rows, sources)
    for row, source in zip(dense, want, strict=True):
        assert torch.equal(row, rows[source] if source >= 0 else torch.zeros(6))


@pytest.mark.parametrize(
    "method", ["pretrained", *(name for name in METHODS if name not in ("vidcom2", "evs-dithered"))]
)
@pytest.mark.parametrize("selection", [None, "diverse"])
def test_with_everything_seen_it_keeps_what_it_keeps_without(method: str, selection: Any) -> None:
    if selection and method in NEEDS_NO_PLACES:
        pytest.skip("selects by itself")
    videos = made([(4, 3, 4), (6, 2, 3)], 1, 16)
    plain = Compressor.from_pretrained(method, retention=0.3, selection=selection)
    everything = Seen(Selection(torch.arange(len(videos.tokens)), videos.lengths), torch.arange(len(videos.tokens)))
    assert torch.equal(plain.select_seen(videos, everything).index, plain.select(videos).index)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["pretrained", "random", "uniform", "divprune", "surprise", "norm"]), st.integers(0, 99))
def test_keeps_exactly_so_many_of_what_was_seen(method: str, seed: int) -> None:
    videos = made([(6, 3, 4), (8, 2, 3)], seed, 16)
    compressor = Compressor.from_pretrained(method, retention=0.2, before_tower=Compressor(RandomMethod(seed), 0.4))
    gate = compressor.gate
    assert gate is not None
    seen = gate.choose(videos)
    dense = filled(videos.tokens[seen.kept.index], fill_sources(videos, seen.kept.index))
    kept = compressor.select_seen(PackedVideos.from_grids(dense, [(6, 3, 4), (8, 2, 3)]), seen)
    check_selection(kept, videos)
    assert kept.keep.tolist() == [keep_count(6, 12, 0.2), keep_count(8, 6, 0.2)]
    assert torch.isin(kept.index, seen.kept.index).all()


def test_a_first_frame_is_no_gate() -> None:
    videos = made([(10, 2, 3), (5, 2, 3)], 0)
    gate = Gate(Compressor("surprise-l2", 0.3), name="surprise-l2")
    with pytest.raises(
        ScoreError, match=r"before_tower must keep at least two frames' worth .* of the 5 frames of video 1 it"
    ):
        gate.choose(videos)
    assert Gate(Compressor("surprise-l2", 0.4), name="surprise-l2").choose(videos).kept.keep.tolist() == [24, 12]
    assert Gate(Compressor("random", 0.3), name="random").choose(videos).kept.keep.tolist() == [18, 9]


@pytest.mark.parametrize("rule", WHOLE_FIRST_FRAME)
def test_a_video_of_one_frame_is_kept_whole_or_refused(rule: str) -> None:
    one = made([(1, 2, 3)], 0)
    assert Gate(Compressor(rule, 1.0), name=rule).choose(one).kept.keep.tolist() == [6]
    with pytest.raises(
        ScoreError, match=r"of the 1 frames of video 0 it keeps 0\.50\. Give it a retention of 1, or take"
    ):
        Gate(Compressor(rule, 0.5), name=rule).choose(one)


def test_a_halo_wider_than_any_frame_takes_no_longer_than_the_frame() -> None:
    videos = made([(2, 7, 9)], 0)
    reached = with_halo(videos, torch.tensor([0]), 10**9)
    assert torch.equal(reached, torch.arange(63))


def test_counts_are_of_what_there_is() -> None:
    """As many as a gate left where a count is more; more than the video has is a mistake."""
    videos = made([(4, 2, 4)], 0)
    seen = Gate(Compressor("random", 0.4), name="random").choose(videos)
    compressor = Compressor("divprune", 0.1)
    assert compressor.select_seen(videos, seen, keep=[32]).keep.tolist() == [12]
    for select in (
        lambda: compressor.select_seen(videos, seen, keep=[33]),
        lambda: compressor.select(videos, keep=[33]),
    ):
        with pytest.raises(ScoreError, match="keep must be at most 32, the tokens of video 0, got 33"):
            select()


def test_what_was_seen_is_of_one_segment_and_nothing_is_asked_for_that() -> None:
    """Of a GPU, where it would be a wait."""
    videos = made([(4, 2, 4), (70, 2, 3)], 0, 16)
    seen = Gate(Compressor("random", 0.5), name="random").choose(videos)
    own = only(videos, seen.kept)
    with Waits() as waits:
        assert own.segments is own
    assert not waits.seen


def test_what_goes_by_places_is_refused_among_what_was_seen() -> None:
    """By whatever way it comes there: a compressor without ``before_tower`` too."""
    videos = made([(4, 2, 4)], 0)
    seen = Gate(Compressor("random", 0.4), name="random").choose(videos)
    for method in ("vidcom2", "evs-dithered", Whole()):
        with pytest.raises(ScoreError, match=r"method must not be .* behind before_tower: it goes by where"):
            Compressor(method, 0.1).select_seen(videos, seen)


class Whole:
    """Everything, as a list: not what ``select`` is to return."""

    def select(self, videos: PackedVideos, question: Any = None, keep: Any = None) -> Selection:
        return Selection(list(range(len(videos.tokens))), list(keep))  # type: ignore[arg-type]


class Listed:
    """Scores that are no tensor."""

    def scores(self, videos: PackedVideos) -> Any:
        return [1.0] * len(videos.tokens)


def test_what_is_returned_is_no_tensor() -> None:
    videos = made([(4, 2, 4)], 0)
    with pytest.raises(ScoreError, match=r"select\(\) must return a Selection that keeps \[3\] of each video, got"):
        Compressor(Whole(), 0.1).select(videos)
    with pytest.raises(ScoreError, match=r"scores of .* must be a tensor, float \[32\], got list"):
        Compressor(Listed(), 0.1).select(videos)


class SelectsByItself:
    def select(self, videos: PackedVideos, question: Any = None, keep: Any = None) -> Selection:
        raise AssertionError("never asked")


class Scores:
    def scores(self, videos: PackedVideos) -> Tensor:
        return videos.tokens.norm(dim=1)


THIRD = Compressor("norm", 0.3)
ADAPTIVE = AdaptiveRetention(0.1, 0.2)
ASKING = Compressor(SurprisePolicy(SurprisePolicyConfig(token_width=8, question_width=8)), 0.3)


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"before_tower": "surprise-l2"}, TypeError, "before_tower must be a Compressor or None, got str"),
        (
            {"before_tower": Compressor("norm", 0.05)},
            ScoreError,
            "before_tower.retention must be at least retention, 0",
        ),
        ({"before_tower": Compressor(retention=ADAPTIVE)}, ScoreError, "before_tower.retention must be a fraction"),
        ({"retention": ADAPTIVE, "before_tower": THIRD}, ScoreError, "^retention must be a fraction"),
        ({"halo": 1}, ScoreError, "halo must be 0 without before_tower, got 1"),
        ({"halo": -1, "before_tower": THIRD}, ScoreError, "halo must be 0 or more, got -1"),
        ({"halo": 1.0, "before_tower": THIRD}, TypeError, "halo must be an integer, got 1.0"),
        ({"halo": True, "before_tower": THIRD}, TypeError, "halo must be an integer, got True"),
        ({"method": "vidcom2", "before_tower": THIRD}, ScoreError, "method must not be 'vidcom2' behind"),
        ({"method": SelectsByItself(), "before_tower": THIRD}, ScoreError, "method must not be .* behind"),
        ({"before_tower": Compressor("norm", 0.3, before_tower=THIRD)}, ScoreError, "before_tower must not have a"),
        ({"before_tower": ASKING}, ScoreError, "before_tower must not look at the question"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        Compressor(**arguments)


def test_features_alone_are_not_enough() -> None:
    compressor = Compressor("norm", 0.1, before_tower=Compressor("random", 0.3))
    with pytest.raises(ScoreError, match="before_tower must be None to choose among features"):
        compressor.select(made([(4, 2, 2)], 0))


@pytest.mark.parametrize(
    "gate",
    [Compressor("surprise-l2", 0.3), Compressor(RandomMethod(7), 0.5), Compressor(retention=0.4, selection="topk")],
)
@pytest.mark.parametrize("method", ["pretrained", "divprune"])
def test_saved_and_loaded(gate: Compressor, method: str, tmp_path: Path) -> None:
    compressor = Compressor.from_pretrained(method, retention=0.2, before_tower=gate, halo=2)
    compressor.save_pretrained(tmp_path / "saved")
    compressor.save_pretrained(tmp_path / "saved")  # over itself
    loaded = Compressor.from_pretrained(tmp_path / "saved")
    assert loaded.before_tower is not None and loaded.gate is not None
    assert (loaded.halo, loaded.retention, loaded.before_tower.retention) == (2, 0.2, gate.retention)
    assert loaded.before_tower.identity() == gate.identity() and loaded.identity() == compressor.identity()
    videos = made([(8, 3, 4)], 3, 48)
    assert compressor.gate is not None
    assert torch.equal(loaded.gate.choose(videos).encoded, compressor.gate.choose(videos).encoded)
    without = Compressor.from_pretrained(method, retention=0.2)
    without.save_pretrained(tmp_path / "saved")
    assert Compressor.from_pretrained(tmp_path / "saved").before_tower is None
    assert "before_tower" not in json.loads((tmp_path / "saved/config.json").read_text())


def test_what_is_wrong_in_a_file_is_named(tmp_path: Path) -> None:
    Compressor("norm", 0.2, before_tower=Compressor("random", 0.3), halo=1).save_pretrained(tmp_path / "a")
    path = tmp_path / "a/config.json"
    good = json.loads(path.read_text())
    for change, says in (
        ({"before_tower": 3}, "before_tower must be an object, got int"),
        ({"before_tower": {**good["before_tower"], "retention": 0.1}}, "before_tower.retention must be at least"),
        ({"before_tower": {"retention": 0.3, "selection": None}}, "lacks 'method'"),
        ({"halo": "1"}, "halo must be an integer"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(ScoreError, match=f"config.json:? .*{says}"):
            Compressor.from_pretrained(tmp_path / "a")


def test_a_rule_of_ones_own_is_code(tmp_path: Path) -> None:
    compressor = Compressor("norm", 0.2, before_tower=Compressor(Scores(), 0.3))
    with pytest.raises(TypeError, match=r"before_tower.method must be a policy or a name to be saved, got Scores"):
        compressor.save_pretrained(tmp_path / "a")
    assert compressor.gate is not None
    with pytest.raises(ScoreError, match="before_tower must be a policy or a named rule for a cache"):
        compressor.gate.identity()


def test_identity_tells_what_keeps_other_tokens() -> None:
    every = [
        *(Compressor(name, share) for name in ("norm", "random") for share in (0.3, 0.4)),
        Compressor(RandomMethod(1), 0.3),
        *(Compressor(retention=0.3, selection=how) for how in (None, "topk")),  # type: ignore[arg-type]
        Compressor(SurprisePolicy(SurprisePolicyConfig(token_width=8)), 0.3),
    ]
    assert len({one.identity() for one in every}) == len(every)
    assert Compressor("norm", 0.3).identity() == Compressor("norm", 0.3, selection="topk").identity()
