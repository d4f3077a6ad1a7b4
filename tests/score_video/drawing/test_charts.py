"""Labels of charts that would lie on each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from score_video.drawing.charts import spread_labels


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_labels_do_not_touch_and_keep_their_order(places: list[float]) -> None:
    moved = spread_labels(places, 5, 0, 100)
    order = np.argsort(places, kind="stable")
    assert (np.diff(np.array(moved)[order]) >= 5 - 1e-9).all()
    assert min(moved) >= -1e-9 and max(moved) <= 100 + 1e-9


def test_labels_far_apart_stay() -> None:
    assert spread_labels([50, 10, 90], 5, 0, 100) == [50, 10, 90]
    assert spread_labels([50, 50], 4, 0, 100) == [48, 52]
