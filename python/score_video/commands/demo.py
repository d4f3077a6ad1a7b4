"""``score demo``: a policy learns on the miniature world while you watch, and is compared with every rival."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from score_video.drawing.charts import Shown, draw_accuracy, draw_kept
from score_video.errors import ScoreError
from score_video.files import output_folder
from score_video.methods import METHODS
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.evaluate import (
    Accuracy,
    Choose,
    budgets,
    choose_by_method,
    choose_by_policy,
    encode_split,
    evaluate,
)
from score_video.miniature.world import NOT_ASKED
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.progress import Progress
from score_video.provenance import versions
from score_video.rl.environment import Selection

FILES = ("results.json", "accuracy.png", "kept.png", "policy")

RETENTIONS = (0.02, 0.05, 0.1, 0.25)
SPLIT = "lookalike"
PICTURED = 0.1  # retention at which it is shown what each method keeps

POLICY = "policy (SCORE)"


@dataclass(frozen=True)
class Results:
    """Accuracies on the same test videos.

    Attributes:
        full: accuracy on all tokens.
        by_method: for each method its accuracy at each of ``RETENTIONS``, the best at ``PICTURED`` first.
    """

    full: Accuracy
    by_method: Mapping[str, Sequence[Accuracy]]


def demo(
    out: Path,
    *,
    steps: int,
    videos: int,
    seed: int,
    overwrite: bool,
    bar: bool,
    progress: Callable[[], AbstractContextManager[Progress]],
    environment: MiniatureEnvironment,
) -> Results:
    """Trains, compares, draws, and writes ``FILES`` into a new folder.

    - ``policy``: as ``save_pretrained`` writes it; ``score eval --policy OUT/policy`` takes it.
    - ``results.json``: every accuracy with its standard error, and how long things took.
    - ``accuracy.png``, ``kept.png``: see :mod:`score_video.drawing.charts`.

    Args:
        out: folder to make; see :func:`score_video.files.output_folder`.
        steps: optimiser steps of the training.
        videos: test videos, at least 2.
        seed: what the policy begins from, and which videos it sees and is tested on.
        overwrite: replace an earlier result.
        bar: draw the bar of the training; otherwise lines are printed.
        progress: opens what is told how far the rest is. (Two bars at a time would spoil each other.)
        environment: the frozen reader.

    Raises:
        ValueError: fewer than 2 videos, no steps, or what the extras ``train`` and ``plots`` install is not there.
        OSError: the output cannot be written.
    """
    if videos < 2:
        raise ScoreError(f"videos must be at least 2, got {videos}")
    if missing := [name for name in ("accelerate", "matplotlib") if not find_spec(name)]:
        raise ScoreError(f"the demo needs {', '.join(missing)}: install score-video[train,plots]")
    seconds: dict[str, float] = {}
    with output_folder(out, FILES, overwrite=overwrite) as folder:
        began = time.perf_counter()
        policy = _train(environment, steps, seed, bar)
        _save(policy, folder / "policy")
        seconds["training"] = time.perf_counter() - began
        began = time.perf_counter()
        methods = _methods(policy, seed)
        with progress() as report:
            results = _compare(environment, methods, videos, seed, report)
        seconds["comparison"] = time.perf_counter() - began
        means = {name: [accuracy.mean for accuracy in row] for name, row in results.by_method.items()}
        draw_accuracy(folder / "accuracy.png", RETENTIONS, means, results.full.mean, POLICY, SPLIT, videos)
        draw_kept(folder / "kept.png", *_shown(environment, {name: methods[name] for name in results.by_method}, seed))
        told = _report(results, steps, videos, seed, seconds)
        (folder / "results.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return results


def _train(environment: MiniatureEnvironment, steps: int, seed: int, bar: bool) -> SurprisePolicy:
    """A policy from random weights, by :class:`score_video.rl.trainer.ScoreTrainer` and its defaults."""
    from transformers import set_seed

    from score_video.rl.config import ScoreConfig
    from score_video.rl.progress import RewardLines
    from score_video.rl.unsaved import train_unsaved

    set_seed(seed)
    policy = SurprisePolicy(SurprisePolicyConfig(token_width=environment.token_width))
    examples = MiniatureVideos(SPLIT, "train", seed, steps * ScoreConfig.per_device_train_batch_size)
    lines = [] if bar else [RewardLines]
    train_unsaved(policy, environment, examples, lines, max_steps=steps, seed=seed, disable_tqdm=not bar)
    return policy


def _save(policy: SurprisePolicy, folder: Path) -> None:
    """Without the bar that transformers would draw over the shards of a large model."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        policy.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _methods(policy: SurprisePolicy, seed: int) -> dict[str, Choose]:
    """The policy, every rival, and the oracle."""
    rivals = {name: choose_by_method(name, seed=seed) for name in (*METHODS, "oracle")}
    return {POLICY: choose_by_policy(policy), **rivals}


def _compare(
    environment: MiniatureEnvironment, methods: Mapping[str, Choose], videos: int, seed: int, progress: Progress
) -> Results:
    progress("comparing", 0, len(methods) + 1)
    batches = encode_split(environment, SPLIT, "test", seed, videos)
    full = evaluate(environment, batches, None)
    progress("comparing", 1, len(methods) + 1)
    rows: dict[str, list[Accuracy]] = {}
    for name, choose in methods.items():
        rows[name] = [evaluate(environment, batches, choose, retention) for retention in RETENTIONS]
        progress("comparing", len(rows) + 1, len(methods) + 1)
    best = sorted(rows, key=lambda name: rows[name][RETENTIONS.index(PICTURED)].mean, reverse=True)
    return Results(full, {name: rows[name] for name in best})


def _shown(
    environment: MiniatureEnvironment, methods: Mapping[str, Choose], seed: int
) -> tuple[torch.Tensor, list[Shown], str]:
    """What each method keeps of a test video: of the first few, the one in which most happens."""
    few = environment.world(SPLIT, "test", seed).videos(range(32))
    number = int(few.activity.argmax())
    batch = environment.encode([MiniatureVideos(SPLIT, "test", seed, 32)[number]])
    keep = budgets(batch, PICTURED)
    answers = batch.payload.answers[0]
    columns = environment.reader.config.columns
    shown = []
    for name, choose in methods.items():
        index = choose(batch, keep)
        best = environment.log_probabilities(batch, Selection(index, keep[None]))[0, 0].argmax(1)
        kept = torch.zeros(len(batch.videos.tokens), dtype=torch.bool)
        kept[index] = True
        right = int(((best == answers) & (answers != NOT_ASKED)).sum())
        shown.append(Shown(name, kept.view(-1, columns, columns), right, int((answers != NOT_ASKED).sum())))
    title = f"What each method keeps: {int(keep[0])} of {len(batch.videos.tokens)} tokens of a test video"
    return few.pixels[number], shown, title


def _report(results: Results, steps: int, videos: int, seed: int, seconds: Mapping[str, float]) -> dict[str, Any]:
    def entry(accuracy: Accuracy) -> dict[str, Any]:
        return {"accuracy": accuracy.mean, "standard_error": accuracy.standard_error, "tasks": accuracy.by_task}

    return {
        "split": SPLIT,
        "steps": steps,
        "videos": videos,
        "questions": int(results.full.asked.sum()),
        "seed": seed,
        "full": entry(results.full),
        "methods": {
            name: {str(retention): entry(accuracy) for retention, accuracy in zip(RETENTIONS, row, strict=True)}
            for name, row in results.by_method.items()
        },
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "versions": versions("torch"),
    }


def print_results(results: Results, console: Console) -> None:
    """The table: a row for each method, the best at ``PICTURED`` first; accuracies in %."""
    errors = [accuracy.standard_error for row in results.by_method.values() for accuracy in row]
    console.print(
        f"Accuracy in % on the split {SPLIT}, {len(results.full.results)} test videos, "
        f"{int(results.full.asked.sum())} questions (standard errors up to {100 * max(errors):.1f})",
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("kept")
    for retention in RETENTIONS:
        table.add_column(f"{retention:.0%}", justify="right")
    table.add_row("all tokens", *[f"{100 * results.full.mean:.1f}"] * len(RETENTIONS), style="dim", end_section=True)
    for name, row in results.by_method.items():
        table.add_row(
            name, *(f"{100 * accuracy.mean:.1f}" for accuracy in row), style="bold" if name == POLICY else None
        )
    console.print(table)
