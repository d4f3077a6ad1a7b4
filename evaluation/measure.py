"""Encoded test videos, and which of their questions a choice of tokens answers rightly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import score_ext
from evaluation.jobs import Files
from evaluation.statistics import Marks, pack
from score_ext.ops import Law
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import (
    Accuracy,
    Choose,
    budgets,
    choose_by_policy,
    encode_split,
    evaluate_counts,
)
from score_video.miniature.world import NOT_ASKED
from score_video.policy import SurprisePolicy
from score_video.rl.environment import EncodedBatch, Selection

Test = Mapping[str, Any]
"""reader, split, seed, videos, and footage for the split that needs it."""

Batches = Sequence[EncodedBatch]


def environment(files: Files, reader: str, footage: str | None = None) -> MiniatureEnvironment:
    """The reader and the footage of those fingerprints; read once in a process."""
    return _environment(files.readers[reader], None if footage is None else files.footage[footage])


_environment = lru_cache(maxsize=16)(MiniatureEnvironment)


def encoded(files: Files, test: Test) -> tuple[MiniatureEnvironment, list[EncodedBatch]]:
    """Its videos after the vision tower; encoded once in a process while it works on the same ones."""
    env = environment(files, test["reader"], test.get("footage"))
    return env, _encoded(env, test["split"], test["seed"], test["videos"])


@lru_cache(maxsize=7)
def _encoded(env: MiniatureEnvironment, split: str, seed: int, videos: int) -> list[EncodedBatch]:
    return encode_split(env, split, "test", seed, videos)


def asked(batches: Batches) -> Marks:
    """bool [videos, tasks]."""
    marks: Marks = (torch.cat([batch.payload.answers for batch in batches]) != NOT_ASKED).numpy()
    return marks


def fixed(batches: Batches, retention: float) -> list[Tensor]:
    """The same budget for every video of as many tokens."""
    return [budgets(batch, retention) for batch in batches]


def row(env: MiniatureEnvironment, batches: Batches, choose: Choose | None, keeps: Sequence[Tensor]) -> dict[str, Any]:
    """What a result keeps of a test: on the tokens that ``choose`` keeps, or on all."""
    return _row(evaluate_counts(env, batches, choose, keeps))


def _row(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "accuracy": accuracy.mean,
        "questions": int(accuracy.asked.sum()),
        "kept": accuracy.kept / accuracy.tokens,
        "right": pack((accuracy.results == 1).numpy()),
    }


def policy_row(
    env: MiniatureEnvironment, batches: Batches, policy: SurprisePolicy, law: Law, keeps: Sequence[Tensor]
) -> dict[str, Any]:
    """On what a policy keeps. One that sees the question chooses anew for each, and is asked that one alone."""
    if not policy.config.question_width:
        return row(env, batches, choose_by_policy(policy, law), keeps)
    parts = [_each_question(env, batch, policy, law, keep) for batch, keep in zip(batches, keeps, strict=True)]
    return _row(Accuracy.join(parts))


@torch.no_grad()
def _each_question(
    env: MiniatureEnvironment, batch: EncodedBatch, policy: SurprisePolicy, law: Law, keep: Tensor
) -> Accuracy:
    videos, answers = batch.videos, batch.payload.answers
    tasks = answers.shape[1]
    index = []
    for task in range(tasks):
        logits = policy(videos, torch.eye(tasks)[task].expand(videos.num_videos, -1))
        index.append(score_ext.select(logits, videos.cu_seqlens, keep, int(keep.sum()), law))
    selection = Selection(torch.cat(index), keep.expand(tasks, -1))
    best = env.log_probabilities(batch, selection).argmax(3)  # [task selected for, B, task asked]
    right = best.diagonal(dim1=0, dim2=2) == answers
    results = right.to(torch.int8).masked_fill_(answers == NOT_ASKED, NOT_ASKED)
    return Accuracy(results, int(keep.sum()), len(videos.tokens))
