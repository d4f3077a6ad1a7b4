"""What the jobs do. Each function takes the files and its parameters, and returns what can be kept as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import score_ext
from evaluation.jobs import Files, Result
from evaluation.measure import Test, asked, encoded, environment, fixed, policy_row, row
from evaluation.statistics import pack, share_out, spearman
from evaluation.train import train
from score_video.miniature.evaluate import choose_by_method
from score_video.policy import expected_count
from score_video.rl.environment import EncodedBatch


def full(files: Files, test: Test) -> Result:
    """The reader on all tokens; and which questions there are."""
    env, batches = encoded(files, test)
    questions = asked(batches)
    everything = row(env, batches, None, [batch.videos.lengths for batch in batches])
    return {"shape": list(questions.shape), "asked": pack(questions), "row": everything}


def method(
    files: Files, test: Test, method: str, laws: Sequence[Any], seeds: Sequence[int], retentions: Sequence[float]
) -> Result:
    """A rival at each retention, by each law (None: a rule of its own) and seed."""
    env, batches = encoded(files, test)
    rows = []
    for law in laws:
        for seed in seeds:
            choose = choose_by_method(method, law, seed)
            for retention in retentions:
                tested = row(env, batches, choose, fixed(batches, retention))
                rows.append({"law": law, "seed": seed, "retention": retention, **tested})
    return {"rows": rows}


def policy(
    files: Files,
    training: Mapping[str, Any],
    tests: Sequence[Test],
    retentions: Sequence[float],
    laws: Sequence[Any],
) -> Result:
    """A policy trained, and tested by each law at each retention."""
    trained, curve = train(files, training)
    rows = []
    for test in tests:
        env, batches = encoded(files, test)
        for law in laws:
            for retention in retentions:
                tested = policy_row(env, batches, trained, law, fixed(batches, retention))
                of_test = {"split": test["split"], "reader": test["reader"]}
                rows.append({**of_test, "law": law, "retention": retention, **tested})
    return {"curve": curve, "rows": rows}


@torch.no_grad()
def _logits_of(policy: Any, batches: Sequence[EncodedBatch]) -> list[torch.Tensor]:
    return [policy(batch.videos) for batch in batches]


def counted(files: Files, training: Mapping[str, Any], test: Test, retentions: Sequence[float]) -> Result:
    """A policy that chooses the count: how many it would keep, how that follows what happens in a video, how good it
    is; and at each retention, its counts scaled to that mean against the same count for every video."""
    trained, curve = train(files, training)
    env, batches = encoded(files, test)
    logits = _logits_of(trained, batches)
    of_batch = {id(batch): logit for batch, logit in zip(batches, logits, strict=True)}
    expected = torch.cat([expected_count(logit, batch.videos) for logit, batch in zip(logits, batches, strict=True)])
    lengths = torch.cat([batch.videos.lengths for batch in batches])

    def choose(batch: EncodedBatch, keep: torch.Tensor) -> torch.Tensor:
        return score_ext.select(of_batch[id(batch)], batch.videos.cu_seqlens, keep, int(keep.sum()), "systematic")

    def at(counts: torch.Tensor) -> dict[str, Any]:
        sizes = [batch.videos.num_videos for batch in batches]
        return row(env, batches, choose, torch.split(counts.int(), sizes))

    world = environment(files, test["reader"], test.get("footage")).world(test["split"], "test", test["seed"])
    activity = world.videos(range(test["videos"])).activity
    by_activity = [
        [level, int(own.sum()), float(expected[own].mean()), float(expected[own].std(correction=0))]
        for level in sorted(set(activity.tolist()))
        for own in [activity == level]
    ]
    equal_mean = []
    for retention in retentions:
        same = torch.cat(fixed(batches, retention))
        # a policy that has collapsed expects 0 tokens, of which there are no shares
        scaled = torch.from_numpy(share_out(expected.clamp(min=1e-6), int(same.sum()), lengths))
        equal_mean.append({"retention": retention, "adaptive": at(scaled), "fixed": at(same)})
    questions = asked(batches)
    return {
        "curve": curve,
        "expected": float(expected.mean()),
        "expected_ratio": float((expected / lengths).mean()),
        "correlation": spearman(expected, activity),
        "by_activity": by_activity,
        "deployed": at(expected.round().clamp(min=1).minimum(lengths)),
        "equal_mean": equal_mean,
        "asked": pack(questions),
        "shape": list(questions.shape),
    }


FUNCTIONS: dict[str, Callable[..., Result]] = {"full": full, "method": method, "policy": policy, "counted": counted}
