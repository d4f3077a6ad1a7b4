"""The sections about policies that choose the count."""

from __future__ import annotations

import numpy as np

from evaluation.experiments import SAME_WHEN_COUNTED
from evaluation.found import Found
from evaluation.sweep import LEAST_TOKENS, MOST_RATIO, Kind, Run, Sweep, kind_name
from evaluation.tables import accuracy, mean_and_spread, percent, points, signed, table
from evaluation.verdicts import adaptive_differences, helps

Lines = list[str]


def advantages(found: Found) -> Lines:
    """The sweep over strategies."""
    sweep, recipe = Sweep(found), found.plan.recipe
    steps, size = recipe.sweep_settings["max_steps"], recipe.sweep_test_videos
    lines = [
        f"The policy chooses the count (law counted), with the linear compression reward. Short trainings of {steps}",
        f"steps, with each of {len(recipe.seeds)} seeds, on the split {recipe.density_split}, tested on {size} videos",
        "at the count that the policy expects. A policy has collapsed when it would keep fewer than",
        f"{LEAST_TOKENS:.0f} tokens on average, or more than {percent(MOST_RATIO, 0)}%. Scaled: divided by the",
        "standard deviation. With this law by_action has nothing to split and is leave_one_out, and by_objective",
        "without division is joint: each pair is one training, shown twice.",
        "",
        "![Weight of the compression reward](results-advantages.png)",
        "",
        "Each cell: tokens kept, in %, and the accuracy with them, means over the seeds that did not collapse; and how",
        "many did.",
        "",
    ]
    held = sweep.weights_held()
    rows = [
        [
            kind_name(kind),
            *(_sweep_cell(sweep.at(kind, weight)) for weight in sweep.weights),
            f"{held[kind]} of {len(sweep.weights)}",
        ]
        for kind in sweep.kinds
    ]
    lines += table(["strategy", *(f"weight {weight:g}" for weight in sweep.weights), "weights held"], rows)
    beyond = sweep.beyond_curve()
    if beyond:
        lines += [
            "At equal retention: how far above the common curve of accuracy over retention (a quadratic in its",
            "logarithm, fitted to all runs that did not collapse) the runs of each strategy lie, in points; standard",
            "errors over runs.",
            "",
        ]
        rows = []
        for kind, difference in beyond.items():
            runs = sweep.survivors(kind)
            correlations = mean_and_spread([run.correlation for run in runs])
            rows.append([kind_name(kind), signed(difference), str(len(runs)), correlations])
        lines += table(["strategy", "points above the curve", "runs", "rank correlation of count and content"], rows)
        lines += _what_splits_buy(held, beyond, len(sweep.weights))
    return lines


def _what_splits_buy(held: dict[Kind, int], beyond: dict[Kind, tuple[float, float]], weights: int) -> Lines:
    """In words, from the numbers: what dividing and splitting do to survival, and to accuracy at equal retention."""
    lines = []
    for scale, name in ((False, "Not divided"), (True, "Divided by the standard deviation")):
        one = {strategy: count for (strategy, of), count in held.items() if of == scale}
        counts = ", ".join(f"{strategy} {count}" for strategy, count in one.items())
        lines.append(f"{name}, no seed collapsed at this many of {weights} weights: {counts}.")
    single = beyond.get(("leave_one_out", False))
    whole = ("leave_one_out", "joint")
    splits = {kind: beyond[kind] for kind in beyond if SAME_WHEN_COUNTED.get(kind, kind[0]) not in whole}
    if single and splits:
        best = max(splits, key=lambda kind: splits[kind][0])
        difference = splits[best][0] - single[0], float(np.hypot(splits[best][1], single[1]))
        clear = "more" if helps(difference) else "no more"
        lines.append(
            f"At equal retention the best of {len(splits)} that split, {kind_name(best)}, lies {signed(difference)} "
            f"points above leave_one_out, which is {clear} than two standard errors."
        )
    return [*lines, ""]


def _sweep_cell(runs: list[Run]) -> str:
    alive = [run for run in runs if not run.collapsed]
    lost = len(runs) - len(alive)
    note = f" ({lost} of {len(runs)} collapsed)" if lost else ""
    if not alive:
        return f"all {lost} collapsed"
    ratio, share = (np.mean([getattr(run, name) for run in alive]) for name in ("ratio", "accuracy"))
    return f"{percent(float(ratio))} / {percent(float(share))}{note}"


def adaptive(found: Found) -> Lines:
    """Counts that follow the video."""
    recipe = found.plan.recipe
    results = [found.result(job) for job in found.jobs["adaptive"]]
    split = recipe.density_split
    settings = ", ".join(f"`{name}` {value}" for name, value in recipe.adaptive_settings.items())
    ratio = mean_and_spread([100 * result["expected_ratio"] for result in results], 1)
    lines = [
        f"Policies that choose the count, trained and tested on the split {split}, with {settings}. They would keep",
        f"{ratio}% of the tokens. Rank correlation of the expected count with the number of things that move or flash",
        f"in the video: {mean_and_spread([result['correlation'] for result in results])}.",
        "",
        "![Count against activity](results-count.png)",
        "",
        "At exactly equal means (each video's expected count, scaled; what rounding leaves goes to the largest",
        "remainders), the same logits, systematic selection:",
        "",
    ]
    rows = []
    for number, (retention, difference, by_seed) in enumerate(adaptive_differences(found)):
        kinds = [found.cell([r["equal_mean"][number][kind] for r in results], split) for kind in ("adaptive", "fixed")]
        seeds = ", ".join(points(d) for d in by_seed)
        rows.append([f"{percent(retention, 0)}%", *(accuracy(kind) for kind in kinds), signed(difference), seeds])
    return lines + table(["mean", "adaptive", "fixed", "difference", "by seed"], rows)
