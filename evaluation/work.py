"""What the jobs do. Each function takes the files and its parameters, and returns what can be kept as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from evaluation.jobs import Files, Result
from evaluation.statistics import Marks, pack, share_out, spearman
from evaluation.train import environment, train
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import (
    Accuracy,
    Choose,
    budgets,
    choose_by_method,
    choose_by_policy,
    encode_split,
    evaluate_counts,
)
from score_video.miniature.world import NOT_ASKED
from score_video.policy import SurprisePolicy, expected_count
from score_video.rl.environment import EncodedBatch, Selection

Test = Mapping[str, Any]
"""reader, split, seed, videos, and footage for the split that needs it."""
Batches = Sequence[EncodedBatch]


def full(files: Files, test: Test) -> Result:
    """The reader on all tokens; and which questions there are."""
    env, batches = _encoded_test(files, test)
    return {**_asked(batches), "row": _row(env, batches, None, [batch.videos.lengths for batch in batches])}


def method(
    files: Files, test: Test, method: str, selections: Sequence[Any], seeds: Sequence[int], retentions: Sequence[float]
) -> Result:
    """A method without training at each retention, by each selection (None: a rule of its own) and seed."""
    env, batches = _encoded_test(files, test)
    rows = []
    for selection in selections:
        for seed in seeds:
            choose = choose_by_method(method, selection, seed)
            for retention in retentions:
                tested = _row(env, batches, choose, _same_for_all(batches, retention))
                rows.append({"selection": selection, "seed": seed, "retention": retention, **tested})
    return {"rows": rows}


def policy(
    files: Files,
    training: Mapping[str, Any],
    tests: Sequence[Test],
    retentions: Sequence[float],
    selections: Sequence[Any],
) -> Result:
    """A policy trained, and tested by each selection at each retention."""
    trained, curve = train(files, training)
    rows = []
    for test in tests:
        env, batches = _encoded_test(files, test)
        for selection in selections:
            for retention in retentions:
                tested = _policy_row(env, batches, trained, selection, _same_for_all(batches, retention))
                of_test = {"split": test["split"], "reader": test["reader"]}
                rows.append({**of_test, "selection": selection, "retention": retention, **tested})
    return {"curve": curve, "rows": rows}


def counted(files: Files, training: Mapping[str, Any], test: Test, retentions: Sequence[float]) -> Result:
    """A policy that chooses the count: how many it would keep, how that follows what happens in a video, how good it
    is; and at each retention, its counts scaled to that mean against the same count for every video."""
    trained, curve = train(files, training)
    env, batches = _encoded_test(files, test)
    with torch.no_grad():
        logits = [trained(batch.videos) for batch in batches]
    expected = torch.cat([expected_count(logit, batch.videos) for logit, batch in zip(logits, batches, strict=True)])
    lengths = torch.cat([batch.videos.lengths for batch in batches])

    choose = choose_by_policy(trained)

    def at(counts: Tensor) -> dict[str, Any]:
        sizes = [batch.videos.num_videos for batch in batches]
        return _row(env, batches, choose, torch.split(counts.int(), sizes))

    world = env.world(test["split"], "test", test["seed"])
    activity = world.videos(range(test["videos"])).activity
    by_activity = [
        [level, int(own.sum()), float(expected[own].mean()), float(expected[own].std(correction=0))]
        for level in sorted(set(activity.tolist()))
        for own in [activity == level]
    ]
    equal_mean = []
    for retention in retentions:
        same = torch.cat(_same_for_all(batches, retention))
        # a policy that has collapsed expects 0 tokens, of which there are no shares
        scaled = torch.from_numpy(share_out(expected.clamp(min=1e-6), int(same.sum()), lengths))
        equal_mean.append({"retention": retention, "adaptive": at(scaled), "fixed": at(same)})
    return {
        "curve": curve,
        "expected": float(expected.mean()),
        "expected_ratio": float((expected / lengths).mean()),
        "correlation": spearman(expected, activity),
        "by_activity": by_activity,
        "deployed": at(expected.round().clamp(min=1).minimum(lengths)),
        "equal_mean": equal_mean,
        **_asked(batches),
    }


FUNCTIONS: dict[str, Callable[..., Result]] = {"full": full, "method": method, "policy": policy, "counted": counted}


def _encoded_test(files: Files, test: Test) -> tuple[MiniatureEnvironment, list[EncodedBatch]]:
    """Its videos after the vision tower; encoded once in a process while it works on the same ones."""
    env = environment(files, test["reader"], test.get("footage"))
    return env, _encoded_split(env, test["split"], test["seed"], test["videos"])


@lru_cache(maxsize=7)
def _encoded_split(env: MiniatureEnvironment, split: str, seed: int, videos: int) -> list[EncodedBatch]:
    return encode_split(env, split, "test", seed, videos)


def _asked(batches: Batches) -> Result:
    """Which questions there are: bool [videos, tasks], packed, and its shape."""
    asked: Marks = (torch.cat([batch.payload.answers for batch in batches]) != NOT_ASKED).numpy()
    return {"shape": list(asked.shape), "asked": pack(asked)}


def _same_for_all(batches: Batches, retention: float) -> list[Tensor]:
    """The same budget for every video of as many tokens."""
    return [budgets(batch, retention) for batch in batches]


def _row(env: MiniatureEnvironment, batches: Batches, choose: Choose | None, keeps: Sequence[Tensor]) -> Result:
    """What a result keeps of a test: on the tokens that ``choose`` keeps, or on all."""
    return _kept(evaluate_counts(env, batches, choose, keeps))


def _kept(accuracy: Accuracy) -> Result:
    return {
        "accuracy": accuracy.mean,
        "questions": int(accuracy.asked.sum()),
        "kept": accuracy.kept / accuracy.tokens,
        "right": pack((accuracy.results == 1).numpy()),
    }


def _policy_row(
    env: MiniatureEnvironment, batches: Batches, policy: SurprisePolicy, selection: Any, keeps: Sequence[Tensor]
) -> Result:
    """On what a policy keeps. One that sees the question chooses anew for each, and is asked that one alone."""
    choose = choose_by_policy(policy, selection)
    if not policy.config.question_width:
        return _row(env, batches, choose, keeps)
    parts = []
    for batch, keep in zip(batches, keeps, strict=True):
        videos, answers = batch.videos, batch.payload.answers
        tasks = torch.eye(answers.shape[1])
        seen = [EncodedBatch(videos, batch.payload, task.expand(videos.num_videos, -1)) for task in tasks]
        index = torch.cat([choose(of_task, keep) for of_task in seen])
        best = env.log_probabilities(batch, Selection(index, keep.expand(len(tasks), -1))).argmax(3)
        right = best.diagonal(dim1=0, dim2=2) == answers  # of [task selected for, B, task asked]
        results = right.to(torch.int8).masked_fill_(answers == NOT_ASKED, NOT_ASKED)
        parts.append(Accuracy(results, int(keep.sum()), len(videos.tokens)))
    return _kept(Accuracy.join(parts))
