"""What was expected of the results, and whether it came out so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from evaluation.found import Found
from evaluation.sweep import Kind, Sweep, kind_name
from evaluation.tables import mean_and_spread, percent, points, signed, table
from score_video.miniature.world import TASKS
from score_video.rl.config import ScoreConfig


@dataclass(frozen=True)
class Verdict:
    """One expectation.

    Attributes:
        expected: in words.
        met: None where it was not measured, or where nothing definite was expected.
        measured: the figure.
    """

    expected: str
    met: bool | None
    measured: str


def verdict_lines(found: Found) -> list[str]:
    """The table of all of them."""
    words = {True: "met", False: "**not met**", None: ""}
    return table(["expected", "", "measured"], [[v.expected, words[v.met], v.measured] for v in all_verdicts(found)])


def all_verdicts(found: Found) -> list[Verdict]:
    """In the order of the document; without those that were not measured."""
    checks: list[tuple[tuple[str, ...], Callable[[Found], Iterator[Verdict]]]] = [
        (("full",), _reader),
        (("full", "methods", "policy"), _policy),
        (("state",), _residual),
        (("curriculum",), _curriculum),
        (("advantages",), _advantages),
        (("adaptive",), _adaptive),
        (("rot",), _rot),
        (("fidelity",), _fidelity),
        (("full", "relative"), _relative),
    ]
    return [verdict for needed, check in checks if all(map(found.has, needed)) for verdict in check(found)]


def _reader(found: Found) -> Iterator[Verdict]:
    least = 0.97
    by_task = {split: found.full(split).answers.by_task for split in found.plan.splits}
    cells = {(s, task.name): share for s, of in by_task.items() for task, share in zip(TASKS, of, strict=True)}
    cells = {key: share for key, share in cells.items() if not np.isnan(share)}
    below = [f"{split} {task} {percent(share)}" for (split, task), share in cells.items() if share < least]
    (split, task), share = min(cells.items(), key=lambda item: item[1])
    measured = f"below it: {', '.join(below)}" if below else f"least: {percent(share)}, {task} in the split {split}"
    yield Verdict("the reader on all tokens: 97% or more on every task of every split", not below, measured)


def _policy(found: Found) -> Iterator[Verdict]:
    name = next(iter(found.plan.recipe.policies))
    expectations = (
        ("plain", 0.10, 0.995, 0.04),
        ("plain", 0.05, 0.98, None),
        ("lookalike", 0.10, 0.985, 0.03),
        ("lookalike", 0.05, 0.95, 0.03),
    )
    for split, retention, share, lead in expectations:
        cell = found.policy("policy", split, policy=name).get(retention)
        if cell is None:
            continue
        full, at = found.full(split), f"at {percent(retention, 0)}%, split {split}"
        measured = cell.accuracy / full.accuracy
        figures = f"{percent(measured)}% ({percent(cell.accuracy)} of {percent(full.accuracy)})"
        yield Verdict(f"{at}: {percent(share)}% of full accuracy or more", measured >= share, figures)
        if lead is not None:
            rival, best = found.best_rival(split, retention)
            difference = cell.answers.minus(best.answers)
            figures = f"{signed(difference)} above {rival} ({percent(best.accuracy)})"
            yield Verdict(f"{at}: {100 * lead:.0f} points or more above the best rival", difference[0] >= lead, figures)


def _residual(found: Found) -> Iterator[Verdict]:
    split = found.plan.recipe.one_split
    everything, without = (found.policy("state", split, state=name) for name in ("everything", "without dX"))
    if 0.05 in everything:
        difference = everything[0.05].answers.minus(without[0.05].answers)
        expected = f"dX against none, split {split}, at 5%: 4 points or more"
        yield Verdict(expected, difference[0] >= 0.04, signed(difference))


def curriculum_differences(found: Found) -> dict[str, dict[float, tuple[float, float]]]:
    """Stills first minus none, by setting and retention, with standard errors."""
    split = found.plan.recipe.one_split
    differences = {}
    for name in found.plan.recipe.curriculum:
        none, first = (
            found.policy("curriculum", split, setting=name, curriculum=kind) for kind in ("none", "stills first")
        )
        differences[name] = {retention: first[retention].answers.minus(none[retention].answers) for retention in none}
    return differences


def helps(difference: tuple[float, float]) -> bool:
    """Whether it is above 0 by more than two standard errors."""
    return difference[0] > 2 * difference[1]


def _curriculum(found: Found) -> Iterator[Verdict]:
    for name, by_retention in curriculum_differences(found).items():
        figures = "; ".join(f"{signed(d)} at {percent(retention, 0)}%" for retention, d in by_retention.items())
        met = any(helps(difference) for difference in by_retention.values())
        yield Verdict(f"the curriculum helps at equal steps: {name}", met, figures)


def _advantages(found: Found) -> Iterator[Verdict]:
    sweep = Sweep(found)
    range_of = sweep.weights_held()
    most = max(range_of.values())
    fields = ScoreConfig.__dataclass_fields__
    default: Kind = (fields["advantage"].default, fields["scale_rewards"].default)  # type: ignore[assignment]
    named = ", ".join(kind_name(kind) for kind, held in range_of.items() if held == most)
    weights = len(found.plan.recipe.sweep_weights)
    yield Verdict(
        "the default advantage is one that holds over the widest range of weights",
        range_of[default] == most,
        f"{default[0]} holds at {range_of[default]} of {weights} weights; the most, {most}: {named}",
    )


def _adaptive(found: Found) -> Iterator[Verdict]:
    correlations = [found.result(job)["correlation"] for job in found.jobs["adaptive"]]
    yield Verdict(
        "the count follows how much happens: a rank correlation above 0 with every seed",
        min(correlations) > 0,
        mean_and_spread(correlations),
    )
    for retention, difference, _ in adaptive_differences(found):
        yield Verdict(
            f"a count for each video is better than a fixed one at equal mean, {percent(retention, 0)}%",
            helps(difference),
            signed(difference),
        )


def adaptive_differences(found: Found) -> list[tuple[float, tuple[float, float], list[float]]]:
    """(retention, adaptive minus fixed with its standard error, the difference of each seed)."""
    jobs, split = found.jobs["adaptive"], found.plan.recipe.density_split
    differences = []
    for number, of_first in enumerate(found.result(jobs[0])["equal_mean"]):
        rows = [found.result(job)["equal_mean"][number] for job in jobs]
        adaptive, fixed = (found.cell([row[kind] for row in rows], split) for kind in ("adaptive", "fixed"))
        by_seed = [a - f for a, f in zip(adaptive.by_seed, fixed.by_seed, strict=True)]
        differences.append((of_first["retention"], adaptive.answers.minus(fixed.answers), by_seed))
    return differences


def rot_differences(found: Found) -> dict[float, tuple[float, float]]:
    """Compressed by the policy minus full, on long videos, with standard errors."""
    full = found.full("long").answers
    name = next(iter(found.plan.recipe.policies))
    return {r: cell.answers.minus(full) for r, cell in found.policy("policy", "long", policy=name).items()}


def _rot(found: Found) -> Iterator[Verdict]:
    differences = rot_differences(found)
    figures = "; ".join(f"{signed(difference)} at {percent(r, 0)}%" for r, difference in differences.items())
    met = any(helps(difference) for difference in differences.values())
    yield Verdict("context rot: compressed above full on long videos", met, figures)


def _fidelity(found: Found) -> Iterator[Verdict]:
    split = found.plan.recipe.one_split
    labels, none = (found.policy("fidelity", split, reward=reward) for reward in ("log_prob", "fidelity"))
    figures = "; ".join(f"{signed(none[r].answers.minus(labels[r].answers))} at {percent(r, 0)}%" for r in labels)
    yield Verdict("training without labels (fidelity) against with: how close", None, figures)


def _relative(found: Found) -> Iterator[Verdict]:
    for tower in found.plan.recipe.test_towers:
        for split in found.plan.recipe.tower_splits:
            cells = found.policy("relative", split, reader=tower, tower="never seen")
            parts, met = [], True
            for retention, cell in cells.items():
                rival, best = found.best_rival(split, retention, "relative", tower)
                met &= cell.accuracy > best.accuracy
                parts.append(f"{points(cell.accuracy - best.accuracy)} at {percent(retention, 0)}% ({rival})")
            expected = f"the relative policy beats the best rule without training on {tower}, never seen, split {split}"
            yield Verdict(expected, met, "; ".join(parts))
