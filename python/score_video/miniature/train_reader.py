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

from score_video.miniature.dropping import drop, live_tokens
from score_video.miniature.reader import HINT_ANSWERS, Reader, ReaderConfig, answer_loss, grid_places
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
# (steps, highest learning rate, weight of the hints) of the training on questions; in each the rate rises and falls.
# Time comes late, because what a token shows is loud beside where it is: the later cycles are mostly about it.
CYCLES = ((5000, 2e-3, 0.3), (1500, 1.5e-3, 1.5), (1000, 1.2e-3, 1.0))
NEW_TOWER_CYCLES = ((600, 1e-3, 0.5),)
IMITATION_STEPS = 400
TOWER_EVERY = 2  # the tower, which knows its patches by then, learns in one step of so many: it is half of the time
ALL_TOKENS = {16: 0.12, 64: 0.02}  # share of batches from which nothing is dropped, by frames
FEWEST, MOST = 14, 320  # tokens kept in the others, log-uniform

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
        _step(optimizer, schedule, loss, reader)


def imitate(reader: Reader, teacher: Reader, batches: _Batches, progress: Progress) -> None:
    """Tower and projector learn to hand the language model what another reader's hand it; patches of the same size."""
    parts = [*reader.tower.parameters(), *reader.project.parameters()]
    optimizer, schedule = _schedule(parts, 5e-3, IMITATION_STEPS)
    for step in progress.track(range(IMITATION_STEPS), description="imitate"):
        pixels = batches(LONG_EVERY * step).pixels[:, ::4]
        with torch.no_grad():
            wanted = teacher.project(teacher.tower(pixels))
        loss = F.mse_loss(reader.project(reader.tower(pixels)), wanted) / wanted.var()
        _step(optimizer, schedule, loss, reader)


def answer_questions(
    reader: Reader, batches: _Batches, steps: range, rate: float, hint_weight: float, seed: int, progress: Progress
) -> None:
    """The whole reader learns to answer, under dropping of many kinds; ``steps`` are numbers of batches."""
    generator = torch.Generator().manual_seed(seed + steps.start)
    optimizer, schedule = _schedule([*reader.parameters()], rate, len(steps))
    task = progress.add_task("reader", total=len(steps))
    smooth = 0.0
    for step in steps:
        videos = batches(step)
        with torch.set_grad_enabled(step % TOWER_EVERY == 0):
            tokens = reader.tower(videos.pixels).flatten(1, 2)  # [B, n, D]
        answers, hints, motion = _losses(reader, videos, tokens, generator)
        _step(optimizer, schedule, answers + hint_weight * hints + 0.5 * motion, reader)
        smooth += (answers.item() - smooth) * max(0.02, 1 / (1 + step - steps.start))
        progress.update(task, advance=1, description=f"reader, loss {smooth:.3f}")


def _losses(
    reader: Reader, videos: Videos, tokens: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the questions, of the hints, of which tokens show something that moves or flashes."""
    frames, columns = videos.pixels.shape[1], reader.config.columns
    shown = thing_counts(videos.things, reader.config.patch)
    place = grid_places(frames, columns)
    n = len(place)
    chance, amount = torch.rand(2, generator=generator).tolist()
    if chance < ALL_TOKENS[frames]:
        kept = torch.arange(n).expand(len(tokens), n)
    else:
        keep = int(FEWEST * (min(n, MOST) / FEWEST) ** amount)
        kept = drop(videos, shown, tokens.detach(), columns, keep, generator)
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


def _step(
    optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, loss: Tensor, reader: Reader
) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
    optimizer.step()
    schedule.step()


def make_reader(config: ReaderConfig, seed: int, start: Path | None, progress: Progress) -> Reader:
    """A reader from random weights; with ``start`` its language model begins as that reader's.

    With ``start`` and patches of the same size only tower and projector are trained, to imitate that reader's: another
    token space for the same language model.
    """
    torch.manual_seed(seed)
    reader, batches = Reader(config), _Batches(seed)
    if start is not None:
        teacher = Reader.load(start)
        own = ("tower", "project.")
        language = {name: w for name, w in teacher.state_dict().items() if not name.startswith((*own, "hints", "live"))}
        reader.load_state_dict(language, strict=False)
        if teacher.config.patch == config.patch:
            imitate(reader, teacher, batches, progress)
            return reader
    name_patches(reader, batches, progress)
    first = TOWER_STEPS * LONG_EVERY  # videos before that are the tower's
    for steps, rate, hint_weight in CYCLES if start is None else NEW_TOWER_CYCLES:
        answer_questions(reader, batches, range(first, first + steps), rate, hint_weight, seed, progress)
        first += steps
    return reader


def main(
    out: Annotated[Path, typer.Option(help="Where to write the weights (.safetensors).")],
    seed: Annotated[int, typer.Option(help="Of the weights, the videos and the dropping.")] = 0,
    patch: Annotated[int, typer.Option(help="Pixels, each side of a token's patch: 3, 4 or 6.")] = 4,
    tower_width: Annotated[int, typer.Option(help="Channels of the vision tower.")] = 96,
    tower_depth: Annotated[int, typer.Option(help="1 x 1 layers after the tower's convolutions.")] = 0,
    token_width: Annotated[int, typer.Option(help="D of the tokens.")] = 64,
    start: Annotated[Path | None, typer.Option(help="A reader whose language model this one begins with.")] = None,
) -> None:
    """Train a reader of the miniature world from nothing (an hour on two cores), or a new tower for one."""
    config = ReaderConfig(patch=patch, tower_width=tower_width, tower_depth=tower_depth, token_width=token_width)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        make_reader(config, seed, start, progress).save(out)


if __name__ == "__main__":
    typer.run(main)
