"""What the state holds of what the vision tower has seen, against a loop over tokens; and a policy that looks at it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.packs import RAGGED, random_videos
from hypothesis import given, settings
from hypothesis import strategies as st

from score_video import Compressor
from score_video.before_tower import Seen
from score_video.packed import Selection
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.policy.seen import SEEN_WIDTH, seen_features

Shapes = tuple[tuple[int, int, int], ...]


def some(shapes: Shapes, share: float, seed: int = 0) -> Seen:
    """A share of the tokens of each video."""
    torch.manual_seed(seed)
    chosen, counts, start = [], [], 0
    for frames, rows, columns in shapes:
        own = (torch.rand(frames * rows * columns) < share).nonzero()[:, 0]
        chosen.append(own + start)
        counts.append(len(own))
        start += frames * rows * columns
    index = torch.cat(chosen)
    return Seen(Selection(index, torch.tensor(counts, dtype=torch.int32)), index)


def by_loop(shapes: Shapes, seen: set[int]) -> list[list[float]]:
    """Token by token."""
    found, start = [], 0
    for frames, rows, columns in shapes:

        def there(t: int, y: int, x: int, sizes: Shapes = ((frames, rows, columns),), start: int = start) -> bool:
            ((frames, rows, columns),) = sizes
            inside = 0 <= t < frames and 0 <= y < rows and 0 <= x < columns
            return inside and start + (t * rows + y) * columns + x in seen

        for t in range(frames):
            for y in range(rows):
                for x in range(columns):
                    back = next((n for n in range(1, t + 1) if there(t - n, y, x)), None)
                    ahead = next((n for n in range(1, frames - t) if there(t + n, y, x)), None)
                    near = [there(t, y - 1, x), there(t, y + 1, x), there(t, y, x - 1), there(t, y, x + 1)]
                    bits = [there(t - 2, y, x), there(t - 4, y, x), *near]
                    found.append([1 / back if back else 0, 1 / ahead if ahead else 0, *map(float, bits)])
        start += frames * rows * columns
    return found


shapes = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4).map(tuple)


@settings(deadline=None)  # a busy machine is slow
@given(shapes=shapes, share=st.sampled_from([0.0, 0.2, 0.7, 1.0]), seed=st.integers(0, 9))
def test_as_by_a_loop(shapes: Shapes, share: float, seed: int) -> None:
    seen = some(shapes, share, seed)
    features = seen_features(random_videos(shapes), seen)
    expected = torch.tensor(by_loop(shapes, set(seen.kept.index.tolist()))).view(-1, SEEN_WIDTH)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected)


def test_without_a_gate_everything_was_seen() -> None:
    videos = random_videos(RAGGED)
    assert torch.equal(seen_features(videos, None), seen_features(videos, some(RAGGED, 1.0)))


@pytest.mark.parametrize("state", ["relative", "residual"])
@pytest.mark.parametrize("question_width", [0, 3])
def test_the_policy_looks_at_it(state: str, question_width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    videos, question = random_videos(RAGGED), torch.randn(len(RAGGED), question_width) if question_width else None
    width = videos.tokens.shape[1]
    config = SurprisePolicyConfig(width, state=state, use_seen=True, question_width=question_width)  # type: ignore[arg-type]
    policy = SurprisePolicy(config)
    half, whole = policy(videos, question, some(RAGGED, 0.5)), policy(videos, question)
    assert half.shape == (len(videos.tokens),) and not torch.equal(half, whole)
    assert torch.equal(whole, policy(videos, question, some(RAGGED, 1.0)))
    half.sum().backward()
    assert all(parameter.grad is not None for parameter in policy.parameters())
    policy.save_pretrained(tmp_path)
    loaded = SurprisePolicy.from_pretrained(tmp_path)
    assert loaded.config == config and torch.equal(loaded(videos, question, some(RAGGED, 0.5)), half)


def test_one_that_does_not_is_as_before() -> None:
    policy = SurprisePolicy(SurprisePolicyConfig(state="relative"))
    videos = random_videos(RAGGED)
    assert torch.equal(policy(videos), policy(videos, None, some(RAGGED, 0.5)))


def test_a_compressor_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    policy = SurprisePolicy(SurprisePolicyConfig(state="relative", use_seen=True, behind_gate=True))
    compressor = Compressor(policy, 0.1, before_tower=Compressor("uniform", 0.5), selection="topk")
    videos, seen = random_videos(RAGGED), some(RAGGED, 0.5)
    kept = compressor.select_seen(videos, seen)
    logits = policy(videos, None, seen)
    start = 0
    for count, rows in zip(kept.keep.tolist(), videos.lengths.tolist(), strict=True):
        own = seen.kept.index[(seen.kept.index >= start) & (seen.kept.index < start + rows)]
        best = own[logits[own].argsort(descending=True, stable=True)[:count]]
        assert set(best.tolist()) <= set(kept.index.tolist())
        start += rows
