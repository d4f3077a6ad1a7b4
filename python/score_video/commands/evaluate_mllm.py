"""``score eval --environment mllm``: policies and rules beside each other, on a video MLLM and questions of one's own.

Answers are teacher-forced, as in training (:class:`score_video.mllm.environment.MllmEnvironment`): nothing is
generated, and what is counted is how often the right answer is the most probable one, and how probable it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from score_video.commands.ask import DTYPES
from score_video.commands.options import Chosen, check_named_once, chosen_by_options
from score_video.commands.seen import before_tower_named
from score_video.compressor import PRETRAINED, Compressor
from score_video.errors import ScoreError
from score_video.mllm.ask import check_policy
from score_video.progress import Progress
from score_video.provenance import versions
from score_video.statistics import ratio_error

if TYPE_CHECKING:
    from score_video.mllm.environment import MllmEnvironment
    from score_video.rl.environment import Example

ALL = "all tokens"
BATCH = 4
"""Videos encoded at a time."""


@dataclass
class Tested:
    """A rule at a retention, or all tokens; lists have an entry for each video.

    Attributes:
        rule: its name.
        retention: 1 for all tokens.
        kept: tokens.
        right: how many questions were answered rightly.
        log_prob: log-probability of the right answers, the sum over the video's questions.
    """

    rule: str
    retention: float
    kept: list[int] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    log_prob: list[float] = field(default_factory=list)


def find_rules(
    policy: str | None,
    methods: Sequence[str],
    selection: str | None,
    seed: int,
    before_tower: Compressor | None = None,
    halo: int | None = None,
) -> list[Chosen]:
    """What the options name: the policy, then each method; without any the policy that comes with the package.

    Args:
        policy: a folder or an id; or None.
        methods: as of :func:`score_video.commands.options.compressor_of_options`, "pretrained" among them.
        selection: "systematic", "topk" or "diverse", for all; None: as each was saved, or has it.
        seed: what the method "random" draws from.
        before_tower, halo: what chooses before the tower, for all.

    Raises:
        ScoreError, OSError: as there, or one is named twice.
    """
    check_named_once("--method", "each rule", methods)
    for_all: dict[str, Any] = {"selection": selection, "before_tower": before_tower, "halo": halo}
    if before_tower is not None:
        for_all["retention"] = before_tower.retention  # which goes with it; what is tested is said by others
    chosen = [chosen_by_options(policy, None, **for_all)] if policy is not None or not methods else []
    for name in methods:
        method = None if name == PRETRAINED else name
        chosen.append(chosen_by_options(None, method, **for_all, seed=seed if name == "random" else None))
    return chosen


def run(
    environment: MllmEnvironment,
    examples: Sequence[Example],
    chosen: Sequence[Chosen],
    retentions: Sequence[float],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Answers every question from all tokens, and from what each rule keeps at each retention.

    Args:
        environment: the model; with ``one_question`` where a rule looks at the question.
        examples: those of :func:`score_video.rl.data.load_examples`, each asking one question where a rule looks at it.
        chosen: rules and policies.
        retentions: each video is kept to the exact count of :func:`score_ext.budget.keep_count`, the same for all.
        progress: told how far things are.

    Returns:
        What ``--json`` writes: ``rows``, see :func:`_row`, all tokens first; ``before_tower``, of each rule what chose
        there, or None; and ``samples``, of each video its ``id``, ``tokens``, ``questions``, and for each rule and
        retention ``kept`` and ``right``.

    Raises:
        ScoreError: a policy that does not fit, or an example that cannot be used.
    """
    from score_video.rl.environment import Selection
    from score_video.rl.rollouts import budgets

    for one in chosen:
        check_policy(environment.model, one.compressor.method, one.name)
    full = Tested(ALL, 1.0)
    tested = [(one.compressor, Tested(one.name, retention)) for one in chosen for retention in retentions]
    for one in chosen:
        gate = one.compressor.before_tower
        if gate is not None and max(retentions) > gate.retention:  # type: ignore[operator]
            raise ScoreError(
                f"retention must be at most that before the tower, {gate.retention}, got {max(retentions)}: no more is "
                "left"
            )
    # what chooses before the tower sees it run anew; "all tokens" are of a tower that has seen all
    worlds = {
        _gate_key(one.compressor): environment.behind(one.compressor.gate)
        for one in chosen
        if one.compressor.gate is not None
    }
    ids: list[str] = []
    tokens: list[int] = []
    asked: list[int] = []
    for begin in range(0, len(examples), BATCH):
        some = [examples[number] for number in range(begin, min(begin + BATCH, len(examples)))]
        batch = environment.encode(some)
        behind = {key: (world, world.encode(some)) for key, world in worlds.items()}
        lengths = batch.videos.lengths
        ids += [str(example["id"]) for example in some]
        tokens += lengths.tolist()
        asked += [len(example["questions"]) for example in some]
        everything = Selection(torch.arange(len(batch.videos.tokens), device=lengths.device), lengths[None].int())
        selections = [(full, environment, batch, everything)]
        for compressor, result in tested:
            world, seen = behind.get(_gate_key(compressor), (environment, batch))
            keep = budgets(batch.videos, result.retention).tolist()
            selections.append((result, world, seen, world.select(seen, compressor, keep)))
        count = torch.tensor(asked[begin:], dtype=torch.float64)
        for result, world, seen, selection in selections:
            outcome = world.answer(seen, selection)
            result.kept += selection.keep[0].tolist()
            result.right += (outcome.correct[0].double().cpu() * count).tolist()
            result.log_prob += (outcome.log_prob[0].double().cpu() * count).tolist()
        if progress:
            progress("videos", len(ids), len(examples))
    results = [full, *(result for _, result in tested)]
    return {
        "videos": len(ids),
        "questions": sum(asked),
        "before_tower": {one.name: before_tower_named(one.compressor) for one in chosen},
        "rows": [_row(result, full, tokens, asked) for result in results],
        "samples": [
            {
                "id": ids[video],
                "tokens": tokens[video],
                "questions": asked[video],
                "results": [
                    {
                        "rule": result.rule,
                        "retention": result.retention,
                        "kept": result.kept[video],
                        "right": round(result.right[video], 6),
                    }
                    for result in results
                ],
            }
            for video in range(len(ids))
        ],
        "versions": versions("torch", "transformers"),
    }


def _gate_key(compressor: Compressor) -> str:
    """What tells one choice before the tower from another; compressors that share one share its features."""
    gate = compressor.gate
    return "" if gate is None else f"{id(compressor.before_tower)} {gate.halo}"


def _row(result: Tested, full: Tested, tokens: Sequence[int], asked: Sequence[int]) -> dict[str, Any]:
    """Of all questions: ``accuracy``, 0 to 1, its ``standard_error`` over videos, its ``difference`` from all tokens
    and the error of that, paired by video; ``share_of_full``; ``log_prob``, the mean of the right answers; and tokens.
    Errors are None for a single video."""
    count, right = torch.tensor(asked), torch.tensor(result.right)
    difference = right - torch.tensor(full.right)
    accuracy, of_full = float(right.sum() / count.sum()), sum(full.right) / sum(asked)
    errors = [ratio_error(value, count) for value in (right, difference)]
    error, of_difference = (None if len(asked) < 2 else value for value in errors)
    return {
        "rule": result.rule,
        "retention": result.retention,
        "kept": sum(result.kept),
        "tokens": sum(tokens),
        "accuracy": accuracy,
        "standard_error": error,
        "difference": float(difference.sum() / count.sum()),
        "difference_error": of_difference,
        "share_of_full": accuracy / of_full if of_full else None,
        "log_prob": sum(result.log_prob) / sum(asked),
    }


def load_environment(
    source: str, device: torch.device, dtype: str, chosen: Sequence[Chosen], **options: Any
) -> MllmEnvironment:
    """A model with its processor, as an environment.

    Args:
        source: a folder, or an id on the hub.
        device, dtype: where the model runs and what its weights are, as for ``score ask``.
        chosen: what will be evaluated in it: whether any looks at the question.
        options: arguments of :class:`score_video.mllm.environment.MllmEnvironment`.

    Raises:
        ScoreError, OSError: as :mod:`score_video.mllm.load` and the class.
    """
    from score_video.mllm.environment import MllmEnvironment, check_options
    from score_video.mllm.load import load_model, load_processor

    check_options(options)
    if dtype not in DTYPES:
        raise ScoreError(f"there is no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    processor = load_processor(source)
    model = load_model(source, device, DTYPES[dtype])
    one_question = any(one.compressor.needs_question for one in chosen)
    return MllmEnvironment(model, processor, **options, one_question=one_question)


def load_questions(data: str, media: Path | None, skip_missing: bool, one_question: bool) -> Sequence[Example]:
    """Examples of a file, which ask one question each where a rule looks at it."""
    from score_video.rl.data import OneQuestionEach, load_examples

    examples = load_examples(data, media=media, skip_missing=skip_missing)
    return OneQuestionEach(examples) if one_question else examples  # type: ignore[return-value]


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """A line for each rule and retention."""
    heading = f"{report['data']}: {report['questions']} questions about {report['videos']} videos; accuracy in %"
    console.print(heading, markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rule", no_wrap=True)
    for name in ("kept", "tokens", "accuracy", "to all tokens", "of full", "log prob"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report["rows"]:
        whole = row["rule"] == ALL
        share = "" if row["share_of_full"] is None else f"{100 * row['share_of_full']:.1f}"
        table.add_row(
            row["rule"],
            "all" if whole else f"{100 * row['retention']:g}%",
            f"{row['kept'] / report['videos']:.0f}",
            _with_error(row["accuracy"], row["standard_error"]),
            "" if whole else _with_error(row["difference"], row["difference_error"], sign="+"),
            share,
            f"{row['log_prob']:.3f}",
        )
    console.print(table)


def _with_error(share: float, error: float | None, sign: str = "") -> str:
    return f"{100 * share:{sign}.1f}" + ("" if error is None else f" ± {100 * error:.1f}")
