"""Makes the reader's weights from nothing: ``python -m score_video.miniature.train_reader --out reader.safetensors``.

Three things make it quick: the vision tower first learns to name what its patches show; the questions of training
include easier ones that the hard ones build on (:data:`~score_video.miniature.reader.HINT_ANSWERS`); and every token is
asked whether it shows something that moves.

The reader is trained under token dropping of many kinds. That is what makes it a fair judge: trained on all tokens, or
under uniform dropping alone, it would make random selection look good and any other bad.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from score_video.miniature.reader import HINT_ANSWERS, Reader, ReaderConfig, answer_loss, grid_places
from score_video.miniature.world import (
    CROSS,
    DISC,
    FLASH,
    FLICKER,
    GLYPH,
    LIVE_THINGS,
    NOT_ASKED,
    NUM_THINGS,
    PARKED_CROSS,
    PARKED_DIAMOND,
    PARKED_DISC,
    PARKED_SQUARE,
    SPLITS,
    SQUARE,
    TASK_NAMES,
    TASKS,
    Videos,
    World,
    thing_counts,
)

# Share of each split among the training videos of 16 frames
MIXTURE = {"plain": 0.2, "lookalike": 0.5, "static": 0.1, "density": 0.2}
LONG_EVERY = 8  # one batch in so many is of long videos


def live_tokens(counts: Tensor) -> Tensor:
    """bool [..., n]: the token shows at least two pixels of something that moves or flashes."""
    return counts[..., list(LIVE_THINGS)].sum(-1) >= 2


def _appearance(videos: Videos, counts: Tensor) -> Tensor:
    """float32 [B, n, 19], 0 or 1: what a patch shows that can be told from one frame."""
    there = counts >= 2
    squares = [there[..., SQUARE + c] | there[..., PARKED_SQUARE + c] for c in range(4)]
    flash_colour = videos.answers[:, TASK_NAMES.index("flash"), None]
    diamonds = [there[..., PARKED_DIAMOND + c] | there[..., FLASH] & (flash_colour == c) for c in range(4)]
    glyph = videos.answers[:, TASK_NAMES.index("glyph"), None]
    glyphs = [there[..., GLYPH] & (glyph == g) for g in range(4)]
    tint = videos.answers[:, TASK_NAMES.index("tint"), None]
    tints = [(counts[..., 0] >= 3) & (tint == c) for c in range(4)]
    others = [there[..., DISC] | there[..., PARKED_DISC], there[..., CROSS] | there[..., PARKED_CROSS]]
    return torch.stack([*squares, *diamonds, *glyphs, *tints, *others, there[..., FLICKER]], -1).float()


def _change(videos: Videos, patch: int) -> Tensor:
    """float32 [B, n], 0 in the first frame: mean absolute difference of a patch's pixels to the frame before."""
    difference = F.pad(videos.pixels.diff(dim=1).abs().mean(2), (0, 0, 0, 0, 1, 0))
    return F.avg_pool2d(difference, patch).flatten(1)


def drop(videos: Videos, counts: Tensor, tokens: Tensor, keep: int, generator: torch.Generator) -> Tensor:
    """Which tokens each video keeps, by a way of dropping drawn for each: int64 [B, keep], ascending.

    Each is Gumbel noise on top of something that a method could go by: nothing; the frame; how much changed; what is
    shown (a random weight for each kind of thing); a random direction in token space; the first frame before all.
    """
    batch, n, _ = counts.shape
    frames = videos.pixels.shape[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    frame = torch.arange(n) // (n // frames)
    change = (_change(videos, tokens_patch(n // frames)) + 1e-3).log()
    live = live_tokens(counts).float()
    shown = torch.einsum("bnc,bc->bn", (counts > 1).float(), normal(batch, NUM_THINGS))
    direction = torch.einsum("bnd,bd->bn", tokens - tokens.mean(1, keepdim=True), normal(batch, tokens.shape[2]))
    direction = direction / direction.std(1, keepdim=True).clamp(min=1e-6)
    kinds = torch.stack(
        [
            torch.zeros(batch, n),
            8 * normal(batch, frames)[:, frame],
            change,
            2 * live + 0.5 * change,
            6 * live,
            3 * live + shown,
            2 * shown,
            1.5 * direction,
            change + 100 * (frame == 0),
        ]
    )
    weights = torch.tensor([1.5, 0.5, 2.0, 3.0, 1.5, 2.0, 1.0, 1.0, 0.5])
    kind = torch.multinomial(weights, batch, replacement=True, generator=generator)
    strength = 0.5 + torch.rand(batch, 1, generator=generator)
    score = kinds[kind, torch.arange(batch)] * strength
    gumbel = -torch.log(-torch.log(torch.rand(batch, n, generator=generator).clamp(1e-9, 1 - 1e-7)))
    return (score + gumbel).topk(keep, 1).indices.sort(1).values


def tokens_patch(tokens_per_frame: int) -> int:
    """Pixels, each side of a patch, from how many of them a frame has."""
    return 24 // math.isqrt(tokens_per_frame)


def _concatenate(parts: list[Videos]) -> Videos:
    return Videos(*(torch.cat([getattr(part, name) for part in parts]) for name in Videos.__dataclass_fields__))


class _Batches:
    """Training videos, batch by batch."""

    def __init__(self, seed: int, batch: int) -> None:
        self.worlds = {name: World(name, "train", seed) for name in (*MIXTURE, "long")}
        self.batch = batch

    def __call__(self, step: int) -> Videos:
        if step % LONG_EVERY == LONG_EVERY - 1:
            size = self.batch // 2
            return self.worlds["long"].videos(range(step * size, (step + 1) * size))
        parts = []
        for name, share in MIXTURE.items():
            size = round(self.batch * share)
            parts.append(self.worlds[name].videos(range(step * size, (step + 1) * size)))
        return _concatenate(parts)


def _pretrain_tower(reader: Reader, batches: _Batches, steps: int) -> None:
    """The vision tower learns to name what each patch shows."""
    head = nn.Sequential(nn.GELU(), nn.Linear(reader.config.token_width, 19))
    optimizer = torch.optim.AdamW([*reader.tower.parameters(), *head.parameters()], lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for step in range(steps):
        videos = batches(LONG_EVERY * step)
        # four frames of each video are plenty
        frames = torch.randperm(videos.pixels.shape[1])[:4]
        videos = replace(videos, pixels=videos.pixels[:, frames], things=videos.things[:, frames])
        labels = _appearance(videos, thing_counts(videos.things, reader.config.patch))
        loss = F.binary_cross_entropy_with_logits(
            head(reader.tower(videos.pixels)).flatten(1, 2), labels, pos_weight=torch.tensor(3.0)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"tower {step + 1}/{steps} loss {loss.item():.4f}", flush=True)


def train(config: ReaderConfig, steps: int, seed: int = 0, batch: int = 32, learning_rate: float = 2e-3, initial: Path | None = None, tower_steps: int = 300) -> Reader:
    """Trains a reader from random weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    reader = Reader(config)
    batches = _Batches(seed, batch)
    if initial:
        reader.load_state_dict(torch.load(initial))
    else:
        _pretrain_tower(reader, batches, tower_steps)
    parameters = [*reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.05)
    began = time.time()
    running: dict[str, float] = {}
    for step in range(steps):
        videos = batches(1000 + step)
        counts = thing_counts(videos.things, config.patch)
        place = grid_places(videos.pixels.shape[1], config.columns)
        n = len(place)
        tokens = reader.tower(videos.pixels).flatten(1, 2)
        if float(torch.rand(1, generator=generator)) < (0.12 if n < 1000 else 0.02):
            kept = torch.arange(n).expand(len(tokens), n)
        else:
            most = min(n, 400)
            keep = int(math.exp(math.log(14) + float(torch.rand(1, generator=generator)) * math.log(most / 14)))
            kept = drop(videos, counts, tokens.detach(), keep, generator)
        rows = kept[..., None]
        asked, video, log_probabilities = reader.read(
            tokens.gather(1, rows.expand(-1, -1, tokens.shape[2])), place[kept], hints=True
        )
        loss = answer_loss(log_probabilities, videos.answers)
        hint_logits = reader.hints(asked[:, len(TASKS) :])
        hint_loss, first = torch.zeros(()), 0
        for number, count in enumerate(HINT_ANSWERS):
            logits = hint_logits[:, number, first : first + count]
            hint_loss = hint_loss + F.cross_entropy(logits, videos.hints[:, number], ignore_index=NOT_ASKED) if (videos.hints[:, number] != NOT_ASKED).any() else hint_loss
            first += count
        live = live_tokens(counts).gather(1, kept).float()
        live_loss = F.binary_cross_entropy_with_logits(reader.live(video)[..., 0], live)
        total = loss + 0.3 * hint_loss / len(HINT_ANSWERS) + 0.5 * live_loss
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        for name, value in (("loss", loss), ("hint", hint_loss), ("live", live_loss)):
            running[name] = 0.98 * running.get(name, float(value)) + 0.02 * float(value)
        if step % 250 == 249:
            print(f"{step + 1}/{steps} {time.time() - began:.0f}s " + " ".join(f"{k} {v:.4f}" for k, v in running.items()), flush=True)
        if step % 1000 == 999 or step == steps - 1:
            torch.save(reader.state_dict(), f"/tmp/reader-{config.patch}-{seed}.pt")
            reader.eval()
            for split in ("plain", "lookalike", "static", "density"):
                print("   ", split, accuracy(reader, split, 256))
            reader.train()
    return reader


@torch.no_grad()
def accuracy(reader: Reader, split: str, count: int, keep: float = 1.0) -> dict[str, float]:
    videos = World(split, "validation", 0).videos(range(count))
    place = grid_places(videos.pixels.shape[1], reader.config.columns)
    right, asked = torch.zeros(len(TASKS)), torch.zeros(len(TASKS))
    for begin in range(0, count, 64):
        tokens = reader.tower(videos.pixels[begin : begin + 64]).flatten(1, 2)
        answers = videos.answers[begin : begin + 64]
        _, _, logp = reader.read(tokens, place.expand(len(tokens), -1, -1))
        right += ((logp.argmax(2) == answers) & (answers >= 0)).sum(0)
        asked += (answers >= 0).sum(0)
    return {name: round(float(r / a) * 100, 1) for name, r, a in zip(TASK_NAMES, right, asked) if a}


if __name__ == "__main__":
    import sys
    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    reader = train(ReaderConfig(), int(sys.argv[1]), int(sys.argv[2]))
    reader.save(Path(f"/tmp/reader-{sys.argv[2]}.safetensors"))
