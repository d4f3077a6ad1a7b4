"""``score eval``: any policy or training-free method on freshly made test videos of the miniature world."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from score_video.commands.options import compressor_of_options
from score_video.commands.seen import before_tower_named
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.methods import METHODS
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import (
    Accuracy,
    Choose,
    batches_of_split,
    choose_by,
    evaluate,
    oracle,
)
from score_video.miniature.world import SPLITS, TASKS
from score_video.policy import SurprisePolicy
from score_video.progress import Progress
from score_video.provenance import versions


@dataclass(frozen=True)
class Choice:
    """What is evaluated.

    Attributes:
        what: a line that says it.
        choose: a function that says which tokens it keeps.
        selection: how it selects; None for a rule of its own.
        one_question: whether it sees the question, and so each video asks a single one.
        behind: the compressor, where it chooses before the vision tower too.
    """

    what: str
    choose: Choose
    selection: str | None
    one_question: bool = False
    behind: Compressor | None = None


def find_choice(
    policy: str | None, method: str | None, selection: str | None, seed: int, environment: MiniatureEnvironment
) -> Choice:
    """What the options name.

    Args:
        policy: a folder or an id, as for :meth:`score_video.Compressor.from_pretrained`; or None.
        method: the name of a training-free method, or "oracle"; or None. With neither it is the policy that comes with
            the package.
        selection: "systematic", "topk" or "diverse"; None: as it was saved, or as a compressor has it.
        seed: the seed of the method "random".
        environment: the miniature it will be evaluated in.

    Raises:
        ScoreError, OSError: both are given, one does not exist, or does not fit the environment.
    """
    if method == "oracle" and policy is None:
        if selection is not None:
            raise ScoreError(f"oracle selects by a rule of its own, got --selection {selection}")
        return Choice(method, oracle, None)
    if method is not None and method not in METHODS and ":" not in method:
        raise ScoreError(f"there is no method {method!r}; there are {', '.join(METHODS)} and oracle")
    compressor = compressor_of_options(policy, method, None, selection, seed if method == "random" else None)
    what = method or ("the pretrained policy" if policy is None else f"the policy {policy}")
    if isinstance(compressor.method, SurprisePolicy):
        _check_fits(what, compressor.method, environment)
    behind = None
    if (gate := before_tower_named(compressor)) is not None:
        behind, what = compressor, f"{what} behind {gate['method']}, {gate['retention']:.0%}, halo {gate['halo']}"
    return Choice(what, choose_by(compressor), compressor.selection_used, compressor.needs_question, behind)


def _check_fits(what: str, policy: SurprisePolicy, environment: MiniatureEnvironment) -> None:
    """Raises ScoreError for a policy that is for other tokens or questions than the miniature's."""
    config = policy.config
    if config.state == "residual" and config.token_width != environment.token_width:
        raise ScoreError(
            f"{what}: the policy is for tokens of width {config.token_width}, the miniature's have "
            f"{environment.token_width}"
        )
    if config.question_width not in (0, len(TASKS)):
        raise ScoreError(
            f"{what}: the policy is for questions of width {config.question_width}, the miniature's have {len(TASKS)}"
        )


def parse_numbers(texts: Iterable[str]) -> list[float]:
    """Retentions, each once, ascending, from what an option was given: repeated, with commas, or both.

    Raises ValueError for what is no number in (0, 1].
    """
    numbers = set()
    for text in (part for given in texts for part in given.split(",")):
        try:
            number = float(text)
        except ValueError:
            raise ScoreError(f"retention must be a number in (0, 1], got {text!r}") from None
        if not 0 < number <= 1:
            raise ScoreError(f"retention must be a number in (0, 1], got {text!r}")
        numbers.add(number)
    return sorted(numbers)


def find_splits(names: Sequence[str], footage: bool) -> list[str]:
    """The splits to evaluate on; without names all that can be made: those over footage only where there is some.

    Raises ValueError for a name that there is not, and for footage that no split asks for.
    """
    for name in names:
        if name not in SPLITS:
            raise ScoreError(f"there is no split {name!r}; there are {', '.join(SPLITS)}")
    wanted = list(dict.fromkeys(names)) or [name for name, split in SPLITS.items() if footage or not split.footage]
    over_footage = [name for name in wanted if SPLITS[name].footage]
    if over_footage and not footage:
        raise ScoreError(f"the split {over_footage[0]} is made over real video: give --footage VIDEO")
    if footage and not over_footage:
        raise ScoreError(f"--footage is for the split footage, got {', '.join(wanted)}")
    return wanted


def run(
    environment: MiniatureEnvironment,
    choice: Choice,
    splits: Sequence[str],
    retentions: Sequence[float],
    num_videos: int,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluates on test videos, which are never trained on. Memory does not grow with the number of videos.

    Args:
        environment: reader and videos.
        choice: the policy or rule to evaluate.
        splits, retentions: where and at which budgets, each video at the exact count of
            :func:`score_ext.budget.keep_count`.
        num_videos: how many of each split, at least 1; numbers 0 to that of the seed.
        seed: any integer from 0.
        progress: told how far things are.

    Returns:
        What ``--json`` writes: see :func:`_entry`.

    Raises:
        ValueError: no videos, or what the environment refuses.
    """
    if num_videos < 1:
        raise ScoreError(f"videos must be at least 1, got {num_videos}")
    report: dict[str, Any] = {
        "evaluated": choice.what,
        "selection": choice.selection,
        "partition": "test",
        "seed": seed,
        "videos": num_videos,
        "splits": {},
        "versions": versions("torch"),
    }
    behind = None
    if choice.behind is not None:
        report["before_tower"] = before_tower_named(choice.behind)
        if max(retentions) > report["before_tower"]["retention"]:
            raise ScoreError(
                f"--retention must be at most {report['before_tower']['retention']}, which {choice.what} leaves before "
                f"the tower, got {max(retentions)}"
            )
        behind = environment.behind(choice.behind.gate)
    for split in splits:
        if progress:
            progress(split, 0, num_videos)
        full: list[Accuracy] = []
        kept: dict[float, list[Accuracy]] = {retention: [] for retention in retentions}
        done = 0
        worlds = [environment] if behind is None else [environment, behind]
        encoded = [batches_of_split(world, split, "test", seed, num_videos, choice.one_question) for world in worlds]
        for of_worlds in zip(*encoded, strict=True):
            batch = of_worlds[0]
            full.append(evaluate(environment, [batch], None))
            for retention, parts in kept.items():
                parts.append(evaluate(worlds[-1], [of_worlds[-1]], choice.choose, retention))
            done += batch.videos.num_videos
            if progress:
                progress(split, done, num_videos)
        everything = Accuracy.join(full)
        rows = [_entry(1.0, everything, everything.mean)]
        rows += [_entry(retention, Accuracy.join(parts), everything.mean) for retention, parts in kept.items()]
        report["splits"][split] = rows
    return report


def _entry(retention: float, accuracy: Accuracy, full: float) -> dict[str, Any]:
    """A row of the report; the first of each split is all tokens, whatever is evaluated. Accuracies are 0 to 1."""
    error = accuracy.standard_error
    return {
        "retention": retention,
        "kept": accuracy.kept,
        "tokens": accuracy.tokens,
        "questions": int(accuracy.asked.sum()),
        "accuracy": accuracy.mean,
        "standard_error": None if math.isnan(error) else error,
        "share_of_full": accuracy.mean / full if full else None,
        "tasks": accuracy.by_task,
    }


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """A table for each split: accuracies in %, the mean with its standard error."""
    selection = f", {report['selection']}" if report["selection"] else ""
    for split, rows in report["splits"].items():
        console.print(
            f"{split}: {report['evaluated']}{selection}; {report['videos']} test videos of seed {report['seed']}, "
            f"{rows[0]['questions']} questions; accuracy in %",
            markup=False,
            highlight=False,
        )
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        tasks = [task.name for task in TASKS if task.name in rows[0]["tasks"]]
        for heading in ("kept", "tokens", *tasks, "mean", "of full"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            error = row["standard_error"]
            mean = f"{100 * row['accuracy']:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")
            share = "" if row["share_of_full"] is None else f"{100 * row['share_of_full']:.1f}"
            kept = "all" if row["retention"] == 1 else f"{100 * row['retention']:g}%"
            tokens = f"{row['kept'] / report['videos']:g}"  # of each video
            table.add_row(kept, tokens, *(f"{100 * row['tasks'][task]:.1f}" for task in tasks), mean, share)
        console.print(table)
