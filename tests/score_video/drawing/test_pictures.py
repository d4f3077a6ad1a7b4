"""That the pictures show what they claim, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from score_video.drawing.overlay import (
    OUTLINE,
    RAMP,
    Compressed,
    contact_sheet,
    dim_dropped,
    heat,
    heat_scale,
    write_overlay,
)


def made_up(t: int, gh: int, gw: int, patch: int = 16) -> Compressed:
    rng = np.random.default_rng(0)
    surprise = rng.random((t, gh, gw), dtype=np.float32)
    surprise[:1] = np.inf
    return Compressed(
        frames=rng.integers(0, 256, (t, gh * patch, gw * patch, 3), dtype=np.uint8),
        timestamps=np.arange(t, dtype=np.float64),
        kept=rng.random((t, gh, gw)) < 0.3,
        surprise=surprise,
    )


def test_kept_patches_are_untouched_but_for_their_outline() -> None:
    frame = np.full((32, 32, 3), 200, dtype=np.uint8)
    kept = np.array([[True, False], [False, False]])
    shown = np.asarray(dim_dropped(frame, kept))
    assert (shown[:14, :14] == 200).all()
    assert (shown[:16, 14:16] == OUTLINE).all()
    assert (shown[14:16, :16] == OUTLINE).all()
    assert (shown[16:] < 60).all()
    assert (shown[:, 16:] < 60).all()
    assert (np.asarray(dim_dropped(frame, np.ones((2, 2), dtype=bool))) == 200).all()


def test_heat_rises_with_surprise_and_is_absent_where_there_is_none() -> None:
    frame = np.full((8, 32, 3), 100, dtype=np.uint8)
    shown = np.asarray(heat(frame, np.array([[0.0, 0.5, 1.0, np.inf]], dtype=np.float32), scale=1.0))
    low, middle, high, unknown = (shown[:, i * 8 : i * 8 + 8].reshape(-1, 3) for i in range(4))
    for patch in (low, middle, high, unknown):
        assert (patch == patch[0]).all()
    assert low[0].sum() < middle[0].sum() < high[0].sum()
    np.testing.assert_allclose(high[0], 0.82 * RAMP[-1] + 18, atol=1)
    assert len(set(unknown[0].tolist())) == 1  # grey


def test_the_scale_ignores_what_has_no_surprise() -> None:
    assert heat_scale(np.array([np.inf, np.nan], dtype=np.float32)) == 1.0
    assert heat_scale(np.zeros(3, dtype=np.float32)) > 0
    assert heat_scale(np.array([np.inf, 2.0, 2.0], dtype=np.float32)) == pytest.approx(2.0)


@pytest.mark.parametrize(("t", "gh", "gw"), [(1, 2, 3), (5, 9, 16), (17, 16, 9), (40, 1, 16), (3, 1, 1)])
def test_every_shape_of_video_has_pictures(tmp_path: Path, t: int, gh: int, gw: int) -> None:
    video = made_up(t, gh, gw)
    sheet = contact_sheet(video, "a very long name " * 20, "facts")
    assert max(sheet.size) < 4000
    write_overlay(tmp_path / "overlay.mp4", video)
    with av.open(str(tmp_path / "overlay.mp4")) as overlay:
        frames = list(overlay.decode(video=0))
        assert overlay.duration is not None
        assert overlay.duration / av.time_base == pytest.approx(0.4 * t, abs=0.01)
    assert len(frames) == t  # each is encoded once and stays on, not encoded again to stay on
    assert [frame.time for frame in frames] == pytest.approx([0.4 * number for number in range(t)], abs=0.01)
    assert frames[0].width % 2 == frames[0].height % 2 == 0


def test_a_long_video_does_not_get_a_long_overlay(tmp_path: Path) -> None:
    for frames, seconds in ((700, 120), (1300, 130)):  # at least a tenth of a second for each
        write_overlay(tmp_path / "overlay.mp4", made_up(frames, 2, 2))
        with av.open(str(tmp_path / "overlay.mp4")) as overlay:
            assert overlay.streams.video[0].frames == frames
            assert overlay.duration is not None
            assert overlay.duration / av.time_base == pytest.approx(seconds, abs=0.2)
