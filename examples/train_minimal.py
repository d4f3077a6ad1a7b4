"""SCORE's algorithm from top to bottom in one file, without a Trainer: a policy learns which visual tokens to keep.

    python examples/train_minimal.py [--steps 200] [--split lookalike] [--videos 300] [--seed 0]

A frozen video model answers questions about videos. A small policy network looks at each visual token and at how it
differs from the same place in the frame before, and says how much it is worth keeping. It is trained by reinforcement
learning on the answers: for each video, draw several random subsets of its tokens, let the model answer from each, and
make the subsets that did better than their group more probable. Then it is compared with picking at random and with
picking by surprise, at the same exact number of tokens.

From score_video come the videos with their questions and the frozen model (``MiniatureEnvironment``), from score_ext
the native ops: ``gumbel_topk`` (k tokens without replacement), ``plackett_luce_log_prob`` (how probable such a draw
was) and ``select`` (what is kept once the policy is trained). The rest is here. ``score train`` does the same with
checkpoints, curricula, several processes and every choice exchangeable.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import score_ext
from score_ext.budget import keep_count
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.packed import PackedVideos
from score_video.rl.environment import EncodedBatch, Selection


@dataclass
class Settings:
    steps: int = 200
    split: str = "lookalike"  # plain, lookalike, static, density or long
    videos: int = 300  # for the comparison at the end
    seed: int = 0
    batch: int = 16  # videos in a step
    group: int = 8  # G, subsets drawn of each video
    retention: float = 0.025  # in training; half or less of what the policy is for makes it choose with care
    learning_rate: float = 3e-3
    worst_reward: float = -3.0  # one hopeless question shall not outweigh all others


# ---- The policy: a state for each token, and a small network


def state(videos: PackedVideos) -> Tensor:
    """[x ; dX ; place], float32 [L, 2 D + 3]."""
    x = videos.tokens.float()
    dx = torch.zeros_like(x)
    place = torch.zeros(len(x), 3)
    ends = videos.cu_seqlens.tolist()
    sizes = zip(ends[:-1], ends[1:], videos.tokens_per_frame.tolist(), videos.columns.tolist(), strict=True)
    for begin, end, per_frame, columns in sizes:
        # dX: the difference from the same place in the frame before; 0 in the first frame
        dx[begin + per_frame : end] = x[begin + per_frame : end] - x[begin : end - per_frame]
        number = torch.arange(end - begin)
        place[begin:end, 0] = number // per_frame / max(1, (end - begin) // per_frame - 1)  # t
        place[begin:end, 1] = number % per_frame // columns / (per_frame // columns)  # y
        place[begin:end, 2] = number % columns / columns  # x
    return torch.cat([F.layer_norm(x, x.shape[1:]), F.layer_norm(dx, dx.shape[1:]), 2 * place - 1], 1)


class Policy(nn.Module):
    """A logit for each token: the larger, the rather it is kept."""

    def __init__(self, token_width: int, hidden: int = 64) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(2 * token_width + 3, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, videos: PackedVideos) -> Tensor:
        """float32 [L]."""
        return self.network(state(videos))[:, 0]


# ---- Training: draw, answer, compare, reinforce


def budgets(videos: PackedVideos, retention: float) -> Tensor:
    """int32 [B]: how many tokens of each video are kept, exactly."""
    return torch.tensor([keep_count(length, 1, retention) for length in videos.lengths.tolist()], dtype=torch.int32)


def train_step(
    environment: MiniatureEnvironment,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    batch: EncodedBatch,
    seed: Tensor,
    settings: Settings,
) -> dict[str, float]:
    """One step on B videos with a seed each, int64 [B]."""
    videos = batch.videos
    keep = budgets(videos, settings.retention)  # [B]
    logits = policy(videos)  # [L]

    # G subsets of each video: k tokens without replacement, each in proportion to exp(logit)
    with torch.no_grad():
        index, order = score_ext.gumbel_topk(logits, videos.cu_seqlens, keep, settings.group, seed)  # [G, K]

    # the frozen model answers from these tokens alone: how probable does it find the right answers?
    outcome = environment.answer(batch, Selection(index.flatten(), keep.expand(settings.group, -1)))
    reward = outcome.log_prob.clamp(min=settings.worst_reward)  # [G, B]

    # how much better than the mean of the other G - 1 subsets of the same video
    advantage = (reward - reward.mean(0)) * settings.group / (settings.group - 1)  # [G, B]

    # make what went well more probable: the policy gradient
    log_prob = score_ext.plackett_luce_log_prob(logits, videos.cu_seqlens, keep, order)  # [G, B]
    loss = -(advantage * log_prob).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    return {"reward": float(reward.mean()), "accuracy": float(outcome.correct.mean())}


def train(environment: MiniatureEnvironment, settings: Settings) -> Policy:
    """A policy from random weights."""
    torch.manual_seed(settings.seed)
    policy = Policy(environment.token_width)
    optimizer = torch.optim.Adam(policy.parameters(), lr=settings.learning_rate)
    examples = MiniatureVideos(settings.split, "train", settings.seed, settings.steps * settings.batch)
    began = time.perf_counter()
    for step in range(settings.steps):
        numbers = range(step * settings.batch, (step + 1) * settings.batch)
        batch = environment.encode([examples[number] for number in numbers])  # the vision tower
        # every video has a seed of its own, so that its draws do not depend on the rest of the batch
        seed = torch.tensor(numbers) + settings.seed * 2**32
        metrics = train_step(environment, policy, optimizer, batch, seed, settings)
        if step % 20 == 19 or step == settings.steps - 1:
            told = " ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            print(f"step {step + 1}/{settings.steps} {time.perf_counter() - began:.0f} s {told}", flush=True)
    return policy


# ---- Afterwards: systematic selection against random and surprise, at the same exact k

Choose = Callable[[PackedVideos, Tensor], Tensor]
"""(videos, keep int32 [B]) -> index int64 [K], ascending, keep[b] rows of each video."""


def by_policy(policy: nn.Module) -> Choose:
    """Systematic: in proportion to the policy's probabilities and spread over the video. Not its k largest logits,
    which would show one and the same object in every frame."""

    @torch.no_grad()
    def choose(videos: PackedVideos, keep: Tensor) -> Tensor:
        return score_ext.select(policy(videos), videos.cu_seqlens, keep, selection="systematic")

    return choose


def by_surprise(videos: PackedVideos, keep: Tensor) -> Tensor:
    """The first frame, then what differs most from the frame before."""
    surprise = score_ext.surprise(videos.tokens, videos.cu_seqlens, videos.tokens_per_frame)
    return score_ext.select(surprise, videos.cu_seqlens, keep)


def at_random(videos: PackedVideos, keep: Tensor) -> Tensor:
    """Every subset of k tokens equally probable."""
    equal = torch.zeros(len(videos.tokens))
    return score_ext.gumbel_topk(equal, videos.cu_seqlens, keep, 1, torch.zeros(1, dtype=torch.int64)).index[0]


def everything(videos: PackedVideos, keep: Tensor) -> Tensor:
    """All tokens."""
    return torch.arange(len(videos.tokens))


def accuracy(environment: MiniatureEnvironment, settings: Settings, choose: Choose, retention: float) -> float:
    """Share of questions answered rightly about test videos, which training never sees; the mean over videos."""
    examples = MiniatureVideos(settings.split, "test", settings.seed, settings.videos)
    total = 0.0
    for begin in range(0, settings.videos, 50):
        batch = environment.encode([examples[n] for n in range(begin, min(begin + 50, settings.videos))])
        index = choose(batch.videos, keep := budgets(batch.videos, retention))
        total += float(environment.answer(batch, Selection(index, keep[None])).correct.sum())
    return total / settings.videos


def compare(
    environment: MiniatureEnvironment, settings: Settings, of_policy: Choose, retentions: tuple[float, ...]
) -> dict[str, list[float]]:
    """Accuracy of each way of choosing at each retention."""
    ways = {"random": at_random, "surprise": by_surprise, "policy": of_policy}
    return {
        name: [accuracy(environment, settings, choose, retention) for retention in retentions]
        for name, choose in ways.items()
    }


def main(
    environment: MiniatureEnvironment,
    settings: Settings,
    retentions: tuple[float, ...] = (0.05, 0.1),
    train: Callable[[MiniatureEnvironment, Settings], nn.Module] = train,
    by_policy: Callable[[nn.Module], Choose] = by_policy,
) -> None:
    """Trains and compares; train_paper.py has a training of its own, and another way of choosing."""
    policy = train(environment, settings)
    print(f"\naccuracy in %, {settings.videos} test videos of the split {settings.split}\n")
    print(f"{'tokens kept':<12}" + "".join(f"{retention:>8.0%}" for retention in retentions))
    for name, accuracies in compare(environment, settings, by_policy(policy), retentions).items():
        print(f"{name:<12}" + "".join(f"{100 * value:>8.1f}" for value in accuracies))
    print(f"{'all tokens':<12}{100 * accuracy(environment, settings, everything, 1.0):>8.1f}")


def parse(arguments: list[str] | None = None) -> Settings:
    parser = argparse.ArgumentParser(description="SCORE's algorithm in one file")
    for name, default in vars(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return Settings(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(MiniatureEnvironment(), parse())
