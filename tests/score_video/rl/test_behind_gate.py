"""Training behind a choice before the vision tower: only what was seen is drawn, and learned from."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.toy import ToyEnvironment, trainer, weights

from score_video import Compressor
from score_video.before_tower import Gate, fill_in
from score_video.errors import ScoreError, ScoreWarning
from score_video.policy import pretrained_policy
from score_video.rl.environment import EncodedBatch, Example
from score_video.rl.rollouts import budgets
from score_video.rl.sampling import SAMPLINGS


class GatedEnvironment(ToyEnvironment):
    """Half of the tokens are seen, those with the largest norm."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(Compressor("norm", 0.5), 0, "norm")
        self.batches: list[EncodedBatch] = []

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        whole = super().encode(examples)
        seen = self.gate.choose(whole.videos)
        batch = replace(whole, videos=fill_in(whole.videos, seen.kept.index), seen=seen)
        self.batches.append(batch)
        return batch


@pytest.mark.parametrize("sampling", ["exact", "bernoulli", "counted", "diverse"])
@pytest.mark.parametrize("retention", [0.2, 0.9])
def test_only_what_was_seen_is_drawn(sampling: str, retention: float, tmp_path: Path) -> None:
    environment = GatedEnvironment()
    settings = {} if sampling in ("exact", "diverse") else {"compression_reward": "hinged"}
    run = trainer(
        tmp_path, environment, sampling=sampling, retention=retention, eval_retention=0.2, max_steps=2, **settings
    )
    run.train()
    assert len(environment.batches) == len(environment.selections) == 2
    for batch, selection in zip(environment.batches, environment.selections, strict=True):
        assert batch.seen is not None
        seen = set(batch.seen.kept.index.tolist())
        assert len(seen) == len(batch.videos.tokens) // 2
        ends = [0, *itertools.accumulate(selection.keep.flatten().tolist())]
        for begin, end in itertools.pairwise(ends):
            rows = selection.index[begin:end].tolist()
            assert set(rows) <= seen and rows == sorted(set(rows))
        if sampling in ("exact", "diverse"):
            wanted = torch.minimum(budgets(batch.videos, retention), batch.seen.kept.keep)
            assert torch.equal(selection.keep, wanted.expand_as(selection.keep))


def test_every_sampling_was_tried() -> None:
    assert set(SAMPLINGS) == {"exact", "bernoulli", "counted", "diverse"}


@pytest.mark.parametrize("interrupted", [3, 4])
def test_resumes_to_the_same_bits(interrupted: int, tmp_path: Path) -> None:
    """Between two steps of a rollout (3), and after one (4)."""
    torch.set_num_threads(1)
    settings = {"num_iterations": 2, "save_steps": 1, "save_total_limit": None}
    whole = trainer(tmp_path / "whole", GatedEnvironment(), **settings)
    whole.train()
    again = trainer(tmp_path / "whole", GatedEnvironment(), **settings)
    again.train(resume_from_checkpoint=str(tmp_path / f"whole/checkpoint-{interrupted}"))
    ours, wanted = weights(again.model), weights(whole.model)
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)


def test_what_was_trained_stands_behind_its_gate(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", GatedEnvironment(), max_steps=1, eval_dataset=[{"number": 1, "frames": 4}])
    run.train()
    assert run.evaluate()["eval_kept_ratio"] == pytest.approx(0.2, abs=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScoreWarning)
        run.compressor().save_pretrained(tmp_path / "saved")
        saved = Compressor.from_pretrained(tmp_path / "saved")
    assert saved.method.config.behind_gate
    assert (saved.before_tower.method, saved.before_tower.retention) == ("norm", 0.5)


def test_a_policy_that_was_not_trained_so_is_warned_of() -> None:
    with pytest.warns(ScoreWarning, match="was not trained behind a choice before the vision tower"):
        Compressor(pretrained_policy(), before_tower=Compressor("uniform", 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScoreWarning)
        Compressor("divprune", before_tower=Compressor("uniform", 0.5))


def test_a_count_of_the_policys_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="retention must be a fraction where something is chosen before the tower"):
        trainer(tmp_path, GatedEnvironment(), sampling="counted", compression_reward="hinged")
    with pytest.raises(ScoreError, match=r"before_tower\.retention must be at least retention, 0\.6"):
        trainer(tmp_path, GatedEnvironment(), eval_retention=0.6)


def test_all_tokens_are_those_that_the_gate_kept() -> None:
    batch = GatedEnvironment().encode([{"number": 0, "frames": 4}, {"number": 1, "frames": 2}])
    assert batch.seen is not None
    assert torch.equal(batch.everything.index, batch.seen.kept.index)
    assert batch.everything.keep.tolist() == [[18, 9]]
    whole = replace(batch, seen=None).everything
    assert whole.index.tolist() == list(range(54)) and whole.keep.tolist() == [[36, 18]]
