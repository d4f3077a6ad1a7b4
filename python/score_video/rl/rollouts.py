"""Rollouts on their way from the environment to the loss: collected once, used for one or more optimiser steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from score_ext.budget import keep_count
from score_video.before_tower import Seen, only
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.packed import PackedVideos
from score_video.rl.advantages import Rewards
from score_video.rl.environment import EncodedBatch, Environment, Example, Outcome, Selection
from score_video.rl.rewards import Combination, TaskReward, kept_ratio, needs
from score_video.rl.sampling import Rollout, Sampling

Policy = Callable[[PackedVideos, Tensor | None, Seen | None], Tensor]
"""(videos, question float32 [B, E] or None, what the tower has seen or None) -> logits float32 [L]."""

PAIRS = ("actions", "decisions", "old_log_prob", "advantage")


@dataclass(frozen=True)
class Prepared:
    """All that the loss needs of a batch: the videos, what was done with them, and how good that was.

    Attributes:
        videos, question: the tokens, and float32 [B, E] or None, that the policy sees.
        seen: what was drawn from, where the vision tower has not seen all tokens; None: from all.
        rollout: G samples of each video; its rows are those of what was drawn from.
        old_log_prob: float32 [G, B] for each factor, under the policy that drew them; None where each rollout is used
            for a single step.
        advantage: float32 [G, B] for each factor; empty until it is known.
    """

    videos: PackedVideos
    question: Tensor | None
    seen: Seen | None
    rollout: Rollout
    old_log_prob: Mapping[str, Tensor] | None
    advantage: Mapping[str, Tensor]

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """What cannot be had again from the examples, by name."""
        selection = self.rollout.selection
        tensors = {f"{prefix}.index": selection.index, f"{prefix}.keep": selection.keep}
        groups = (self.rollout.actions, self.rollout.decisions, self.old_log_prob or {}, self.advantage)
        for group, of in zip(PAIRS, groups, strict=True):
            tensors |= {f"{prefix}.{group}.{name}": tensor for name, tensor in of.items()}
        return tensors

    @staticmethod
    def restore(
        videos: PackedVideos, question: Tensor | None, seen: Seen | None, tensors: Mapping[str, Tensor], prefix: str
    ) -> Prepared:
        """From :meth:`tensors`, and the same examples encoded again."""

        def group(name: str) -> dict[str, Tensor]:
            start = f"{prefix}.{name}."
            return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}

        selection = Selection(tensors[f"{prefix}.index"], tensors[f"{prefix}.keep"])
        rollout = Rollout(selection, group("actions"), group("decisions"))
        return Prepared(videos, question, seen, rollout, group("old_log_prob"), group("advantage"))


def budgets(videos: PackedVideos, retention: float) -> Tensor:
    """int32 [B]: how many tokens of each video that retention keeps (:func:`score_ext.budget.keep_count`)."""
    lengths = videos.lengths
    counts = [keep_count(length, 1, retention) for length in lengths.tolist()]
    return torch.tensor(counts, dtype=torch.int32, device=lengths.device)


def encode(environment: Environment, examples: Sequence[Example]) -> EncodedBatch:
    """The environment's ``encode``, whose answer is checked."""
    encoded = environment.encode(examples)
    found = encoded.videos.num_videos
    if found != len(examples):
        raise ScoreError(f"environment.encode must give {len(examples)} videos, one for each example, got {found}")
    return encoded


def for_policy(encoded: EncodedBatch, device: torch.device) -> tuple[PackedVideos, Tensor | None, Seen | None]:
    """Videos, questions and what the tower has seen on the policy's device; the environment may be on another."""
    question = None if encoded.question is None else encoded.question.to(device)
    return encoded.videos.to(device), question, None if encoded.seen is None else encoded.seen.to(device)


def drawn_from(logits: Tensor, videos: PackedVideos, seen: Seen | None) -> tuple[Tensor, PackedVideos]:
    """The logits and tokens that samples are drawn from: all, or those alone that the vision tower has seen."""
    return (logits, videos) if seen is None else (logits[seen.kept.index], only(videos, seen.kept))


def answer(environment: Environment, encoded: EncodedBatch, selection: Selection, reward: TaskReward) -> Outcome:
    """The environment's ``answer``, asked on its device and returned on the selection's."""
    sent = selection.to(encoded.videos.tokens.device)
    return environment.answer(encoded, sent, **needs(reward)).to(selection.index.device)


@torch.no_grad()
def collect(
    environment: Environment,
    encoded: EncodedBatch,
    policy: Policy,
    device: torch.device,
    sampling: Sampling,
    reward: TaskReward,
    *,
    retention: float,
    num_samples: int,
    seeds: Sequence[int],
    again: bool = False,
) -> tuple[Prepared, dict[str, Tensor]]:
    """Draws samples of each video and has the environment answer them.

    Args:
        retention: the budget, where the sampling does not choose the count.
        num_samples: G.
        seeds: one for each video.
        again: whether the rollout will be used for more than one step, and so needs ``old_log_prob``.

    Returns:
        The batch, without advantages yet; and float32 [G, B] each: ``task``, the reward, ``correct``, ``kept_ratio``,
        ``kept`` (tokens), and ``decisions.FACTOR`` for each factor of the sampling.

    Raises:
        ValueError: a logit is NaN or infinite, or a result has another shape than [G, B].
    """
    videos, question, seen = for_policy(encoded, device)
    logits, drawn = drawn_from(policy(videos, question, seen), videos, seen)
    seed = torch.tensor(seeds, dtype=torch.int64, device=logits.device)
    keep = budgets(videos, retention)
    rollout = sampling.sample(logits, drawn, torch.minimum(keep, drawn.lengths), num_samples, seed)
    selection = rollout.selection
    if seen is not None:
        selection = Selection(seen.kept.index[selection.index], selection.keep)
    outcome = answer(environment, encoded, selection, reward)
    results = {
        "task": reward(outcome),
        "correct": outcome.correct,
        "kept_ratio": kept_ratio(selection, videos),
        "kept": selection.keep,
        **{f"decisions.{factor}": number for factor, number in rollout.decisions.items()},
    }
    for name, result in results.items():
        if result.shape != (num_samples, videos.num_videos):
            raise ScoreError(f"{name} must be [{num_samples}, {videos.num_videos}], got {list(result.shape)}")
    old = sampling.log_prob(logits, drawn, rollout) if again else None
    return Prepared(videos, question, seen, rollout, old, {}), {name: r.float() for name, r in results.items()}


def rewards_of(
    results: Mapping[str, Tensor], compression: Tensor, combination: Combination, factors: Sequence[str]
) -> Rewards:
    """The batch's rewards from its results, ``decisions.FACTOR`` among them."""
    decisions = {factor: results[f"decisions.{factor}"] for factor in factors}
    return Rewards(results["task"], compression, results["correct"], decisions, combination)


@torch.no_grad()
def deployed(
    environment: Environment, encoded: EncodedBatch, compressor: Compressor, device: torch.device, reward: TaskReward
) -> tuple[Outcome, Tensor]:
    """What a policy does once it is trained: one selection of each video, as ``compressor`` makes it on ``device``.

    Returns:
        what the environment made of it, and the fraction kept, float32 [1, B].
    """
    videos, question, seen = for_policy(encoded, device)
    selected = compressor.select_seen(videos, seen, question if compressor.needs_question else None)
    selection = Selection(selected.index, selected.keep[None])
    return answer(environment, encoded, selection, reward), kept_ratio(selection, videos)
