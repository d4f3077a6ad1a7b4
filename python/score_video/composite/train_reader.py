"""Makes readers: ``python -m score_video.composite.train_reader --help``.

As in the miniature: what a token shows is learned first, by itself; training asks easier questions besides
(:data:`~score_video.composite.reader.HINTS`); and mirrored, turned and reversed videos come for nothing, because a
token's place is told to the reader, not seen in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from score_video.command_line import run_module
from score_video.composite.dropping import LIVE_PIXELS, SHOWN_PIXELS, change, drop
from score_video.composite.features import Features, load_features, tower_of
from score_video.composite.reader import HINTS, Reader, ReaderConfig
from score_video.composite.scenery import FRAMES
from score_video.composite.world import (
    COLUMNS,
    FIRST_BALL,
    FIRST_FLASH,
    FIRST_LANDMARK,
    FIRST_MARK,
    NOT_ASKED,
    TASK_NAMES,
    TOKENS,
    TOKENS_PER_FRAME,
)
from score_video.miniature.environment import shipped_reader
from score_video.miniature.reader import Reader as MiniatureReader
from score_video.miniature.reader import grid_places
from score_video.miniature.train_reader import take_step
from score_video.miniature.world import TASK_NAMES as THEIR_NAMES

NAMING_STEPS, NAMING_TOKENS, NAMING_RATE = 2500, 2048, 3e-3
STEPS, RATE = 10_000, 2e-3
MOST_VIDEOS, MOST_TOKENS = 24, 5200  # of a batch: as many videos as both allow
FEWEST, MOST = 20, 200  # tokens that a video keeps
SHORT = 0.75  # share of the steps with at most so many; after them anything up to all tokens
_ALIKE = {"direction": "direction", "count": "count", "flash": "flash", "order": "order", "landmark": "glyph"}
"""Questions that begin as one of the miniature's."""


@dataclass
class _Batch:
    tokens: Tensor
    shown: Tensor
    live: Tensor
    place: Tensor  # float32 [B, n, 3]
    answers: Tensor
    hints: Tensor


def train_reader(features: Features, tower: str, seed: int, steps: int, progress: Progress) -> Reader:
    """A reader that has learned from features.

    Args:
        features: those of the partition "reader".
        tower: fingerprint of the tower that made them.
        seed: what weights, batches and dropping are drawn from.
        steps: how many the training on questions has.
        progress: shows how far it is.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    reader = Reader(ReaderConfig(features.tokens.shape[2], tower))
    some = features.tokens[:: max(1, len(features) // 64)].flatten(0, 1).float()
    reader.mean.copy_(some.mean(0))
    reader.scale.copy_(1 / some.std(0).clamp(min=1e-3))
    _begin_as_the_miniature(reader)
    _name_tokens(reader, features, generator, progress)
    _answer_questions(reader, features, steps, generator, progress)
    return reader


def _begin_as_the_miniature(reader: Reader) -> None:
    """Its layers and places start as those of the miniature's reader, which knows what motion and order are."""
    known = MiniatureReader.load(shipped_reader())
    of_language = ("place", "norm", "blocks")
    weights = {name: weight for name, weight in known.state_dict().items() if name.startswith(of_language)}
    reader.load_state_dict(weights, strict=False)
    with torch.no_grad():
        for own, its in _ALIKE.items():
            reader.questions[TASK_NAMES.index(own)] = known.questions[THEIR_NAMES.index(its)]
    reader.requires_grad_(True)


def _name_tokens(reader: Reader, features: Features, generator: torch.Generator, progress: Progress) -> None:
    """The projection learns what a token shows, by itself."""
    tokens, shown = features.tokens.flatten(0, 1), features.shown.flatten(0, 1)
    rich = torch.cat([(part >= SHOWN_PIXELS).any(1) for part in torch.split(shown, 200_000)]).nonzero()[:, 0]
    parameters = [*reader.project.parameters(), *reader.names.parameters()]
    optimizer, schedule = _schedule(parameters, NAMING_RATE, NAMING_STEPS)
    for _ in progress.track(range(NAMING_STEPS), description="names"):
        size = NAMING_TOKENS // 2
        rows = torch.cat([rich[_drawn(len(rich), size, generator)], _drawn(len(tokens), size, generator)])
        there = (shown[rows] >= SHOWN_PIXELS).float()
        loss = F.binary_cross_entropy_with_logits(reader.names(reader.projected(tokens[rows].float())), there)
        take_step(optimizer, schedule, 10 * loss, reader)


def _answer_questions(
    reader: Reader, features: Features, steps: int, generator: torch.Generator, progress: Progress
) -> None:
    changed = torch.cat([change(tokens) for tokens in torch.split(features.tokens, 20)])
    hints = _hints(features, changed)
    place = grid_places(FRAMES, COLUMNS)
    named = [*reader.project.parameters()]  # they know their names: slower than the rest
    rest = [parameter for parameter in reader.parameters() if all(parameter is not other for other in named)]
    optimizer = torch.optim.AdamW([{"params": rest}, {"params": named}], lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [RATE, RATE / 10], total_steps=steps, pct_start=0.08)
    task, smooth = progress.add_task("reader", total=steps), 0.0
    for step in range(steps):
        most = MOST if step < SHORT * steps else 1.25 * TOKENS  # above TOKENS: nothing is dropped
        keep = int(math.exp(torch.empty(1).uniform_(math.log(FEWEST), math.log(most), generator=generator)))
        keep = min(keep, TOKENS)
        rows = _drawn(len(features), min(MOST_VIDEOS, MOST_TOKENS // keep), generator)
        batch = _Batch(
            features.tokens[rows],
            features.shown[rows],
            features.live[rows],
            place.expand(len(rows), -1, -1),
            features.answers[rows],
            hints[rows],
        )
        _mirror(batch, generator)
        if keep < TOKENS:
            kept = drop(batch.tokens, changed[rows], batch.shown, batch.live, keep, generator)
            batch.live = batch.live.gather(1, kept)
            for name in ("tokens", "shown", "place"):
                part = getattr(batch, name)
                setattr(batch, name, part.gather(1, kept[..., None].expand(-1, -1, part.shape[2])))
        answers, rest_of_loss = _losses(reader, batch)
        take_step(optimizer, schedule, answers + rest_of_loss, reader)
        smooth += (answers.item() - smooth) * max(0.02, 1 / (1 + step))
        progress.update(task, advance=1, description=f"reader, loss {smooth:.3f}")


def _losses(reader: Reader, batch: _Batch) -> tuple[Tensor, Tensor]:
    """Of the questions; and of all that only training asks."""
    log_p, asked, alone, states = reader.read(batch.tokens.float(), batch.place, training=True)
    is_asked = batch.answers != NOT_ASKED
    right = log_p.gather(2, batch.answers.clamp(min=0)[..., None])[..., 0]
    answers = -right[is_asked].mean()
    logits, first, rest = reader.hints(asked[:, -len(HINTS) :]), 0, answers.new_zeros(())
    for number, count in enumerate(HINTS):
        rest = rest + 0.2 * F.cross_entropy(logits[:, number, first : first + count], batch.hints[:, number])
        first += count
    alive, there = (batch.live >= LIVE_PIXELS).float(), (batch.shown >= SHOWN_PIXELS).float()
    rest = rest + 2 * F.binary_cross_entropy_with_logits(reader.names(alone), there)
    lively = reader.live(states)
    rest = rest + 0.5 * F.binary_cross_entropy_with_logits(lively[..., 0], alive)
    return answers, rest + 2 * F.binary_cross_entropy_with_logits(lively[..., 1:], there * alive[..., None])


def _mirror(batch: _Batch, generator: torch.Generator) -> None:
    """Mirrors, transposes and reverses: what the tower saw stays, where and when it was changes, and so do answers."""
    size = len(batch.place)
    batch.place, batch.answers, batch.hints = batch.place.clone(), batch.answers.clone(), batch.hints.clone()

    def some() -> Tensor:
        return torch.rand(size, generator=generator) < 0.5

    def renamed(task: str, table: list[int], rows: Tensor) -> None:
        old = batch.answers[rows, TASK_NAMES.index(task)]
        new = torch.where(old < 0, old, torch.tensor(table)[old.clamp(min=0)])
        batch.answers[rows, TASK_NAMES.index(task)] = new

    for axis, direction, where in ((2, [1, 0, 2, 3], [1, 0, 3, 2]), (1, [0, 1, 3, 2], [2, 3, 0, 1])):
        rows = some()
        batch.place[rows, :, axis] = 1 - batch.place[rows, :, axis]
        renamed("direction", direction, rows)
        renamed("where", where, rows)
    rows = some()
    batch.place[rows] = batch.place[rows][:, :, [0, 2, 1]]
    renamed("direction", [2, 3, 0, 1], rows)
    renamed("where", [0, 2, 1, 3], rows)
    rows = some()  # backwards
    batch.place[rows, :, 0] = 1 - batch.place[rows, :, 0]
    renamed("direction", [1, 0, 3, 2], rows)
    renamed("order", [1, 0], rows)
    when = batch.hints[rows][:, 3:]
    batch.hints[rows, 3:] = torch.where(when == 8, when, 7 - when)


def _hints(features: Features, changed: Tensor) -> Tensor:
    """int64 [V, hints], from what is shown, and for the cut from where the frame as a whole changes most."""
    parts = []
    for shown, live in zip(torch.split(features.shown, 100), torch.split(features.live, 100), strict=True):
        alive = (live > 0).view(len(live), FRAMES, TOKENS_PER_FRAME, 1)
        there = (shown.view(len(shown), FRAMES, TOKENS_PER_FRAME, -1).float() * alive).sum(2)  # [v, FRAMES, symbols]
        balls = there[..., FIRST_BALL:FIRST_FLASH].amax(1).view(-1, 2, 3).amax(1)
        short = [there[..., FIRST_FLASH:FIRST_LANDMARK].amax(2), there[..., FIRST_MARK:].amax(2)]
        when = [torch.where(pixels.amax(1) > 20, pixels.argmax(1) // 2, 8) for pixels in short]
        parts.append(torch.cat([(balls > 20).long(), torch.stack(when, 1)], 1))
    cut = changed.view(len(changed), FRAMES, -1).mean(2).argmax(1) // 2
    has_cut = features.answers[:, TASK_NAMES.index("cut")] == 1
    return torch.cat([torch.cat(parts), torch.where(has_cut, cut, 8)[:, None]], 1)


def _drawn(most: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(most, (count,), generator=generator)


def _schedule(
    parameters: list[nn.Parameter], rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)


def main(
    features: Annotated[Path, typer.Argument(help="Folder of features: python -m score_video.composite.features.")],
    out: Annotated[Path, typer.Argument(help="File to write the weights to (.safetensors).")],
    videos: Annotated[int, typer.Option(help="How many of the partition reader.")] = 2000,
    seed: Annotated[int, typer.Option(help="What weights, batches and dropping are drawn from.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of the training on questions.")] = STEPS,
) -> None:
    """Train a reader of the semi-real world on kept features."""
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns) as progress:
        data = load_features(features, "reader", range(videos))
        train_reader(data, tower_of(features, "reader"), seed, steps, progress).save(out)


if __name__ == "__main__":
    run_module(main)
