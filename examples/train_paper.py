"""The paper's own recipe in one file, beside ours in train_minimal.py, which compares the two's policies alike.

    python examples/train_paper.py [--steps 200] [--split lookalike] [--videos 300] [--seed 0]

What the method figure of SCORE (arXiv 2603.26365) shows, and of ours only what it leaves open (LayerNorm, the widths,
the formula of the sparsity, how the advantage is split): the state [x ; dX], where dX of a first frame is the frame
itself; an MLP and a sigmoid; K masks of each video, in which each token is kept by itself; the cross-entropy of the
answer against that on all tokens, times a reward for sparsity; one advantage for each mask; REINFORCE with the mean
over a video's tokens; and, once it is trained, the most probable tokens. ``score train --preset paper`` does the same,
with pseudo-videos of stills before the videos.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from train_minimal import Choose, Settings, main, parse

import score_ext
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.packed import PackedVideos
from score_video.rl.environment import EncodedBatch, Selection


def state(videos: PackedVideos) -> Tensor:
    """[x ; dX], float32 [L, 2 D]; dX is x itself in a first frame."""
    x = videos.tokens.float()
    dx = x.clone()
    ends = videos.cu_seqlens.tolist()
    for begin, end, per_frame in zip(ends[:-1], ends[1:], videos.tokens_per_frame.tolist(), strict=True):
        dx[begin + per_frame : end] -= x[begin : max(begin, end - per_frame)]
    return torch.cat([F.layer_norm(x, x.shape[1:]), F.layer_norm(dx, dx.shape[1:])], 1)


class PaperPolicy(nn.Module):
    """A logit for each token; its sigmoid is the probability of keeping it, which begins at about one half."""

    def __init__(self, token_width: int, hidden: int = 64) -> None:
        super().__init__()
        layers = nn.Linear(2 * token_width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        self.network = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def forward(self, videos: PackedVideos) -> Tensor:
        """float32 [L]."""
        return self.network(state(videos))[:, 0]


def split_advantage(reward: Tensor, better: Tensor) -> Tensor:
    """Each reward [K, B] less the mean of the others of its part: masks that beat the full model, and those that do
    not. 0 for a mask that is alone in its part. (Our reading: how the paper splits is not published.)"""
    advantage = torch.zeros_like(reward)
    for part in (better, ~better):
        number = part.sum(0)  # [B]
        mean = torch.where(part, reward, 0.0).sum(0) / number.clamp(min=1)
        advantage += torch.where(part, reward - mean, 0.0) * number / (number - 1).clamp(min=1)
    return advantage


def train_step(
    environment: MiniatureEnvironment,
    policy: PaperPolicy,
    optimizer: torch.optim.Optimizer,
    batch: EncodedBatch,
    seed: Tensor,
    samples: int,
) -> dict[str, float]:
    """One step on B videos with a seed each, int64 [B]; ``samples`` = K."""
    videos = batch.videos
    logits = policy(videos)  # [L]
    with torch.no_grad():
        mask, _, count = score_ext.sample_bernoulli(logits, videos.cu_seqlens, samples, seed)  # [K, L], [K, B]
    outcome = environment.answer(batch, Selection(mask.nonzero()[:, 1], count), full=True)

    # above 0 where the model answers better than from all tokens; times the share of the tokens that were dropped
    delta_ce = outcome.log_prob - outcome.full_log_prob  # [K, B]
    sparsity = 1 - count / videos.lengths
    advantage = split_advantage(delta_ce * sparsity, delta_ce > 0)

    # -(1/K) sum_k A_k (1/TN) sum_i log pi(m_ki), and the mean over videos
    log_prob = torch.where(mask, F.logsigmoid(logits), F.logsigmoid(-logits))  # [K, L]
    of_video = torch.zeros_like(advantage).index_add(1, videos.video_of_token, log_prob)
    loss = -(advantage * of_video / videos.lengths).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    kept = float((count / videos.lengths).mean())
    return {"delta_ce": float(delta_ce.mean()), "kept": kept, "accuracy": float(outcome.correct.mean())}


def train(environment: MiniatureEnvironment, settings: Settings) -> PaperPolicy:
    """A policy from random weights."""
    torch.manual_seed(settings.seed)
    policy = PaperPolicy(environment.token_width)
    optimizer = torch.optim.Adam(policy.parameters(), lr=settings.learning_rate)
    examples = MiniatureVideos(settings.split, "train", settings.seed, settings.steps * settings.batch)
    for step in range(settings.steps):
        numbers = range(step * settings.batch, (step + 1) * settings.batch)
        batch = environment.encode([examples[number] for number in numbers])
        seed = torch.tensor(numbers) + settings.seed * 2**32
        metrics = train_step(environment, policy, optimizer, batch, seed, settings.group)
        if step % 20 == 19 or step == settings.steps - 1:
            told = " ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            print(f"step {step + 1}/{settings.steps} {told}", flush=True)
    return policy


def by_topk(policy: nn.Module) -> Choose:
    """The k most probable tokens of each video."""

    @torch.no_grad()
    def choose(videos: PackedVideos, keep: Tensor) -> Tensor:
        return score_ext.select(policy(videos), videos.cu_seqlens, keep)

    return choose


if __name__ == "__main__":
    main(MiniatureEnvironment(), parse(), train=train, by_policy=by_topk)
