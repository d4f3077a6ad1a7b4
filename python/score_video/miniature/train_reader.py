"""Makes readers: ``python -m score_video.miniature.train_reader --help``.

Three things make it quick. The vision tower first learns to name what its patches show. The questions of training
include easier ones that the hard ones build on (:data:`~score_video.miniature.reader.HINT_ANSWERS`). And every token is
asked whether it shows something that moves or flashes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from score_video.command_line import run_module
from score_video.miniature.dropping import drop, live_tokens
from score_video.miniature.reader import HINT_ANSWERS, Reader, ReaderConfig, answer_loss, grid_places
from score_video.miniature.towers import PATCHES
from score_video.miniature.world import (
    BACKGROUND,
    CROSS,
    DISC,
    FLASH,
    FLICKER,
    GLYPH,
    NOT_ASKED,
    PARKED_CROSS,
    PARKED_DIAMOND,
    PARKED_DISC,
    PARKED_SQUARE,
    SQUARE,
    TASK_NAMES,
    TASKS,
    Videos,
    World,
    thing_counts,
)

BATCH = 32
MIXTURE = {"plain": 6, "lookalike": 16, "static": 4, "density": 6}  # videos of each split in a batch of 16 frames
LONG_EVERY = 8  # one batch in so many is of long videos, and half as large
TOWER_STEPS, TOWER_FRAMES = 500, 4
_TOWER_BATCHES = TOWER_STEPS * LONG_EVERY  # videos up to there are seen by the tower alone
STEPS, RATE = 7000, 2e-3  # of the training on questions
NEW_TOWER_STEPS, NEW_TOWER_RATE = 2400, 1.5e-3  # the same for a reader whose language model is another's
TOWER_EVERY = 2  # the tower, which knows its patches by then, learns in one step of so many: it is half of the time
ALL_TOKENS = {16: 0.12, 64: 0.02}  # share of batches from which nothing is dropped, by frames
FEWEST, MOST, AMOUNTS = 14, 320, 24  # tokens kept in the others: from, to, in so many equal steps of their logarithm

APPEARANCES = 19


class _Batches:
    """Training videos, batch by batch: no video comes twice."""

    def __init__(self, seed: int) -> None:
        self.worlds = {name: World(name, "train", seed) for name in (*MIXTURE, "long")}

    def __call__(self, step: int) -> Videos:
        if step % LONG_EVERY == LONG_EVERY - 1:
            return self._videos("long", step, BATCH // 2)
        parts = [self._videos(name, step, count) for name, count in MIXTURE.items()]
        return Videos(*(torch.cat([getattr(part, name) for part in parts]) for name in Videos.__dataclass_fields__))

    def _videos(self, split: str, step: int, count: int) -> Videos:
        return self.worlds[split].videos(range(step * count, (step + 1) * count))


def _appearance(videos: Videos, shown: Tensor) -> Tensor:
    """float32 [B, n, APPEARANCES], 0 or 1: what a patch shows, as far as one frame can tell."""
    there = shown >= 2
    flash_colour, glyph, tint = (videos.answers[:, TASK_NAMES.index(name), None] for name in ("flash", "glyph", "tint"))
    squares = [there[..., SQUARE + c] | there[..., PARKED_SQUARE + c] for c in range(4)]
    diamonds = [there[..., PARKED_DIAMOND + c] | there[..., FLASH] & (flash_colour == c) for c in range(4)]
    glyphs = [there[..., GLYPH] & (glyph == g) for g in range(4)]
    tints = [(shown[..., BACKGROUND] >= 3) & (tint == c) for c in range(4)]
    whites = [there[..., DISC] | there[..., PARKED_DISC], there[..., CROSS] | there[..., PARKED_CROSS]]
    return torch.stack([*squares, *diamonds, *glyphs, *tints, *whites, there[..., FLICKER]], -1).float()


def _schedule(
    parameters: list[nn.Parameter], rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)


def name_patches(reader: Reader, batches: _Batches, progress: Progress) -> None:
    """The vision tower learns to name what each patch shows."""
    head = nn.Sequential(nn.GELU(), nn.Linear(reader.config.token_width, APPEARANCES))
    optimizer, schedule = _schedule([*reader.tower.parameters(), *head.parameters()], 5e-3, TOWER_STEPS)
    for step in progress.track(range(TOWER_STEPS), description="tower"):
        videos = batches(LONG_EVERY * step)
        frames = torch.randperm(videos.pixels.shape[1])[:TOWER_FRAMES]
        videos = replace(videos, pixels=videos.pixels[:, frames], things=videos.things[:, frames])
        labels = _appearance(videos, thing_counts(videos.things, reader.config.patch))
        logits = head(reader.tower(videos.pixels)).flatten(1, 2)
        loss = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor(3.0))
        take_step(optimizer, schedule, loss, reader)


def answer_questions(
    reader: Reader, batches: _Batches, steps: int, rate: float, seed: int, drop_patches: bool, progress: Progress
) -> None:
    """The whole reader learns to answer, under dropping of many kinds.

    Args:
        drop_patches: in every other batch the tower sees what is kept, and a share of the rest, alone.
    """
    generator = torch.Generator().manual_seed(seed + _TOWER_BATCHES)
    optimizer, schedule = _schedule([*reader.parameters()], rate, steps)
    task = progress.add_task("reader", total=steps)
    smooth = 0.0
    for step in range(steps):
        videos = batches(_TOWER_BATCHES + step)
        tower_learns, in_part = step % TOWER_EVERY == 0, drop_patches and step // TOWER_EVERY % 2 == 1
        answers, hints, motion = _losses(reader, videos, tower_learns, in_part, generator)
        take_step(optimizer, schedule, answers + hints + 0.5 * motion, reader)
        smooth += (answers.item() - smooth) * max(0.02, 1 / (1 + step))
        progress.update(task, advance=1, description=f"reader, loss {smooth:.3f}")


def _losses(
    reader: Reader, videos: Videos, tower_learns: bool, in_part: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the questions, of the hints, of which tokens show something that moves or flashes."""
    with torch.set_grad_enabled(tower_learns and not in_part):
        tokens = reader.tower(videos.pixels).flatten(1, 2)  # [B, n, D]
    frames, columns = videos.pixels.shape[1], reader.config.columns
    shown = thing_counts(videos.things, reader.config.patch)
    place = grid_places(frames, columns)
    n = len(place)
    chance, amount = torch.rand(2, generator=generator).tolist()
    if chance < ALL_TOKENS[frames]:
        kept = torch.arange(n).expand(len(tokens), n)
    else:
        keep = int(FEWEST * (min(n, MOST) / FEWEST) ** (round(amount * AMOUNTS) / AMOUNTS))
        kept = drop(videos, shown, tokens.detach(), columns, keep, generator)
    if in_part:
        share = torch.rand(len(tokens), 1, generator=generator)
        seen = (torch.rand(len(tokens), n, generator=generator) < share).scatter_(1, kept, True)
        with torch.set_grad_enabled(tower_learns):
            tokens = reader.tower(videos.pixels, seen.view(len(seen), frames, -1)).flatten(1, 2)
    rows = kept[..., None].expand(-1, -1, tokens.shape[2])
    asked, video, log_probabilities = reader.read(tokens.gather(1, rows), place[kept], hints=True)
    answers = answer_loss(log_probabilities, videos.answers)
    hints = _hint_loss(reader.hints(asked[:, len(TASKS) :]), videos.hints)
    live = live_tokens(shown).gather(1, kept).float()
    motion = F.binary_cross_entropy_with_logits(reader.live(video)[..., 0], live)
    return answers, hints, motion


def _hint_loss(logits: Tensor, hints: Tensor) -> Tensor:
    """[B, hints, all hints' answers] -> scalar; each hint reads its own span of answers."""
    losses, first = [], 0
    for number, count in enumerate(HINT_ANSWERS):
        asked = hints[:, number] != NOT_ASKED
        of_hint = logits[asked, number, first : first + count]
        losses.append(F.cross_entropy(of_hint, hints[asked, number], reduction="sum") / asked.sum().clamp(min=1))
        first += count
    return torch.stack(losses).mean()


def take_step(
    optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, loss: Tensor, reader: nn.Module
) -> None:
    """One step of an optimiser and its schedule down a loss's gradient, clipped to a norm of 1."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
    optimizer.step()
    schedule.step()


def make_reader(config: ReaderConfig, seed: int, start: Path | None, drop_patches: bool, progress: Progress) -> Reader:
    """A reader from random weights; with ``start`` its language model begins as that reader's, and it learns faster."""
    torch.manual_seed(seed)
    reader, batches = Reader(config), _Batches(seed)
    steps, rate = STEPS, RATE
    if start is not None:
        own = ("tower", "project.", "hints", "live")
        language = {name: w for name, w in Reader.load(start).state_dict().items() if not name.startswith(own)}
        reader.load_state_dict(language, strict=False)
        steps, rate = NEW_TOWER_STEPS, NEW_TOWER_RATE
    name_patches(reader, batches, progress)
    answer_questions(reader, batches, steps, rate, seed, drop_patches, progress)
    return reader


def main(
    out: Annotated[Path, typer.Option(help="File to write the weights to (.safetensors).")],
    seed: Annotated[int, typer.Option(help="What weights, videos and dropping are drawn from.")] = 0,
    patch: Annotated[int, typer.Option(help="Pixels, each side of a token's patch: 3, 4 or 6.")] = 4,
    tower_width: Annotated[int, typer.Option(help="Channels of the vision tower.")] = 96,
    tower_depth: Annotated[
        int, typer.Option(help="1 x 1 layers after the tower's convolutions; with --tower-attends, of the transformer.")
    ] = 0,
    tower_attends: Annotated[bool, typer.Option("--tower-attends", help="The tower is a ViT.")] = False,
    drop_patches: Annotated[
        bool, typer.Option("--drop-patches", help="Every other batch, the tower sees a part of the patches alone.")
    ] = False,
    token_width: Annotated[int, typer.Option(help="D of the tokens.")] = 64,
    start: Annotated[Path | None, typer.Option(help="A reader whose language model this one begins with.")] = None,
) -> None:
    """Train a reader of the miniature world from nothing (half an hour on two cores), or a new tower for one."""
    if patch not in PATCHES:
        raise typer.BadParameter(f"must be one of {', '.join(map(str, PATCHES))}, got {patch}", param_hint="--patch")
    config = ReaderConfig(patch, tower_width, tower_depth, token_width, tower_attends=tower_attends)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        make_reader(config, seed, start, drop_patches, progress).save(out)


if __name__ == "__main__":
    run_module(main)
