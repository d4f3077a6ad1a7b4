"""What was expected of the results, and whether it came out so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from evaluation.experiments import REWARDS
from evaluation.results import Results
from evaluation.text import at, by_retention, kind_name, mean_and_spread, percent, points, signed
from score_video.miniature.world import TASKS
from score_video.rl.config import ScoreConfig


class Check(NamedTuple):
    """One expectation, in words.

    Attributes:
        expected: what.
        met: None where nothing definite was expected.
        measured: the figure.
    """

    expected: str
    met: bool | None
    measured: str


def all_checks(results: Results) -> Iterator[Check]:
    """In the order of the document; without those whose results are not there."""
    one_split, complete = results.recipe.one_split, results.complete
    if complete():
        yield _reader(results)
    if complete("methods", "policy"):
        yield from _policy(results)
    if complete("state"):
        everything, without = (results.policy("state", one_split, state=name) for name in ("everything", "without dX"))
        if 0.05 in everything:
            gain = everything[0.05].answers.minus(without[0.05].answers)
            yield Check(
                f"dX against none, split {one_split}, at 5%: 4 points or more", gain.value >= 0.04, signed(gain)
            )
    if complete("curriculum"):
        for name, gains in results.curriculum_gains().items():
            helps = any(gain.clear for gain in gains.values())
            yield Check(f"the curriculum helps at equal steps: {name}", helps, by_retention(gains))
    if complete("advantages"):
        stable, weights = results.sweep.stable_weights(), len(results.sweep.weights)
        most, default = max(stable.values()), (ScoreConfig.advantage, ScoreConfig.scale_rewards)
        named = ", ".join(kind_name(kind) for kind, count in stable.items() if count == most)
        expected = "the default advantage is one that is stable over the widest range of weights"
        measured = f"{default[0]} is stable at {stable[default]} of {weights} weights; the most, {most}: {named}"
        yield Check(expected, stable[default] == most, measured)
    if complete("adaptive"):
        correlations = results.adaptive("correlation")
        expected = "the count follows how much happens: a rank correlation above 0 with every seed"
        yield Check(expected, min(correlations) > 0, mean_and_spread(correlations))
        for retention, adaptive, fixed in results.adaptive_gains():
            gain = adaptive.answers.minus(fixed.answers)
            expected = f"a count for each video is better than a fixed one at equal mean, {at(retention)}"
            yield Check(expected, gain.clear, signed(gain))
    if complete("context-rot"):
        gains = results.long_video_gains()
        better = any(gain.clear for gain in gains.values())
        yield Check("context rot: compressed above full on long videos", better, by_retention(gains))
    if complete("fidelity"):
        labels, none = (results.policy("fidelity", one_split, reward=reward) for reward in REWARDS)
        gains = {r: none[r].answers.minus(labels[r].answers) for r in labels}
        yield Check("training without labels (fidelity) against with: how close", None, by_retention(gains))
    if complete("towers"):
        yield from _towers(results)


def _reader(results: Results) -> Check:
    least = 0.97
    shares = {
        f"{split} {task.name}": share
        for split in results.splits
        for task, share in zip(TASKS, results.full(split).answers.by_task, strict=True)
        if not np.isnan(share)
    }
    below = [f"{where} {percent(share)}" for where, share in shares.items() if share < least]
    lowest = min(shares, key=lambda where: shares[where])
    measured = f"below it: {', '.join(below)}" if below else f"least: {percent(shares[lowest])}, {lowest}"
    return Check("the reader on all tokens: 97% or more on every task of every split", not below, measured)


def _policy(results: Results) -> Iterator[Check]:
    expectations = (
        ("plain", 0.10, 0.995, 0.04),
        ("plain", 0.05, 0.98, None),
        ("lookalike", 0.10, 0.985, 0.03),
        ("lookalike", 0.05, 0.95, 0.03),
    )
    for split, retention, share, lead in expectations:
        cell = results.policy("policy", split, policy=results.main).get(retention)
        if cell is None:
            continue
        full, where = results.full(split), f"at {at(retention)}, split {split}"
        measured = cell.accuracy / full.accuracy
        figures = f"{percent(measured)}% ({percent(cell.accuracy)} of {percent(full.accuracy)})"
        yield Check(f"{where}: {percent(share)}% of full accuracy or more", measured >= share, figures)
        if lead is not None:
            name, best = results.best_method(split, retention)
            gain = cell.answers.minus(best.answers)
            figures = f"{signed(gain)} above {name} ({percent(best.accuracy)})"
            expected = f"{where}: {100 * lead:.0f} points or more above the best method without training"
            yield Check(expected, gain.value >= lead, figures)


def _towers(results: Results) -> Iterator[Check]:
    for tower in results.recipe.test_towers:
        for split in results.recipe.tower_splits:
            parts, met = [], True
            for retention, cell in results.policy("towers", split, reader=tower, tower="never seen").items():
                name, best = results.best_method(split, retention, "towers", tower)
                met &= cell.accuracy > best.accuracy
                parts.append(f"{points(cell.accuracy - best.accuracy)} at {at(retention)} ({name})")
            expected = f"the relative policy beats the best method without training on {tower}, never seen"
            yield Check(f"{expected}, split {split}", met, "; ".join(parts))
