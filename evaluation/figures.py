"""The figures of the document, from the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from evaluation.experiments import STATES
from evaluation.recipe import STRATEGIES
from evaluation.results import Cells, Results, Training
from score_video.drawing.charts import spread_labels
from score_video.files import output_file

# Okabe and Ito's colours, told apart by colour-blind people too
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}


def draw_figures(results: Results, docs: Path) -> list[Path]:
    """Draws those whose results are there; returns the files."""
    figures: dict[str, tuple[tuple[str, ...], Callable[[Results], Figure]]] = {
        "retention": (("methods", "policy"), _retention),
        "needed": (("methods", "policy"), _needed),
        "state": (("state",), _state),
        "count": (("adaptive",), _count),
        "advantages": (("advantages",), _advantages),
    }
    drawn = {f"results-{name}.png": draw for name, (needed, draw) in figures.items() if results.complete(*needed)}
    with matplotlib.rc_context(_STYLE):
        for name, draw in drawn.items():
            with output_file(docs / name) as temporary:
                draw(results).savefig(temporary, format="png", dpi=130)
    return [docs / name for name in drawn]


def _label_ends(axes: Axes, x: float, labels: Sequence[tuple[str, float, str]]) -> None:
    """Names lines at their right ends: (name, y, colour)."""
    if not labels:
        return
    # in parts of the height: the axis may be logarithmic
    to_height = axes.transScale + axes.transLimits
    heights = [to_height.transform((x, y))[1] for _, y, _ in labels]
    places = [to_height.inverted().transform((0, h))[1] for h in spread_labels(heights, 0.058, 0, 1)]
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
    style: Any = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 7.5, "bbox": box}
    for (name, _, colour), place in zip(labels, places, strict=True):
        axes.annotate(name, (x, place), color=colour, **style)


def _log_axis(axes: Axes, ticks: Sequence[float], write: Callable[[float], str]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))


def _percent(cells: Cells, retentions: Sequence[float]) -> list[float]:
    return [100 * cells[r].accuracy for r in retentions]


def _retention(results: Results) -> Figure:
    """Accuracy against retention: policy, the best methods overall, random, oracle, all tokens."""
    splits, retentions, name = results.splits, sorted(results.recipe.retentions), results.main
    methods = {split: results.methods(split) for split in splits}
    shown = list(zip(_best_overall(list(methods.values()), retentions), (BLUE, GREEN, PURPLE), strict=True))
    across = (len(splits) + 1) // 2
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(2, across))).ravel()
    for number, (axes, split) in enumerate(zip(panels, splits, strict=False)):
        full = 100 * results.full(split).accuracy
        lines = [
            (name, results.policy("policy", split, policy=name), VERMILION, "-", 2.4),
            (f"{name}, topk", results.policy("policy", split, "topk", policy=name), VERMILION, ":", 1.4),
            *((one, methods[split][one], colour, "-", 1.2) for one, colour in shown),
            ("random", methods[split]["random"], GREY, "-", 1.2),
            ("oracle", results.methods(split, oracle=True)["oracle"], BLACK, "--", 1.0),
        ]
        for _, cells, colour, style, width in lines:
            axes.plot(retentions, _percent(cells, retentions), style, color=colour, lw=width, marker="o", ms=2 + width)
        axes.axhline(full, color=BLACK, lw=0.8, ls=(0, (1, 2)))
        axes.margins(y=0.08)
        axes.set_title(split)
        if number % across == 0:
            axes.set_ylabel("accuracy, %")
        axes.set_xlim(retentions[0] * 0.9, retentions[-1] * (retentions[-1] / retentions[0]) ** 0.55)
        _log_axis(axes, retentions, lambda value: f"{100 * value:g}%")
        axes.set_xlabel("tokens kept")
        ends = [(label, _percent(cells, retentions)[-1], colour) for label, cells, colour, _, _ in lines]
        _label_ends(axes, retentions[-1], [*ends, ("all tokens", full, BLACK)])
    for axes in panels[len(splits) :]:
        axes.set_axis_off()
    return figure


def _needed(results: Results) -> Figure:
    """The retention that is needed for 99% of the full accuracy: a row for each split, with intervals."""
    splits = results.splits
    methods = {split: results.methods(split) for split in splits}
    shown = _best_overall(list(methods.values()), sorted(results.recipe.retentions))
    figure = Figure(figsize=(8, 0.9 + 0.75 * len(splits)), layout="constrained")
    axes = figure.subplots()
    lines = [(results.main, VERMILION), *zip(shown, (BLUE, GREEN, PURPLE), strict=False), ("random", GREY)]
    for place, (name, colour) in enumerate(lines):
        for row, split in enumerate(splits):
            cells = results.policy("policy", split, policy=name) if place == 0 else methods[split][name]
            found = results.needed(cells, split, 0.99)
            y = len(splits) - row + 0.3 - 0.15 * place
            axes.plot([100 * found.low, 100 * found.high], [y, y], color=colour, lw=1.6)
            axes.plot(100 * found.value, y, "o", color=colour, ms=5, label=name if row == 0 else None)
    _log_axis(axes, (1, 2, 5, 10, 25, 50, 100), lambda value: f"{value:g}%")
    axes.set_yticks([len(splits) - row for row in range(len(splits))], splits)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("tokens needed for 99% of the accuracy on all of them")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _best_overall(by_split: list[dict[str, Cells]], retentions: Sequence[float]) -> list[str]:
    """The three methods with the highest mean accuracy over splits and retentions; each by its better selection."""
    mean = {name: np.mean([of[name][r].accuracy for of in by_split for r in retentions]) for name in by_split[0]}
    shown: dict[str, str] = {}
    for name in sorted(mean, key=lambda name: -mean[name]):
        shown.setdefault(name.split(",")[0], name)
    return [name for method, name in shown.items() if method != "random"][:3]


def _state(results: Results) -> Figure:
    """Accuracy with parts of the state left out: a mark for each seed, a bar for the mean."""
    recipe = results.recipe
    retentions = sorted(recipe.few_retentions)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    full = 100 * results.full(recipe.one_split).accuracy
    colours = (VERMILION, BLUE, GREEN, PURPLE)
    for number, (name, colour) in enumerate(zip(STATES, colours, strict=True)):
        cells = results.policy("state", recipe.one_split, state=name)
        places = np.arange(len(retentions)) + (number - 1.5) * 0.19
        axes.hlines(_percent(cells, retentions), places - 0.08, places + 0.08, color=colour, lw=3)
        for place, retention in zip(places, retentions, strict=True):
            seeds = [100 * share for share in cells[retention].by_seed]
            axes.plot([place] * len(seeds), seeds, "o", color=colour, ms=3.5, mfc="white", zorder=3)
        lowest = min(100 * min(cells[retentions[0]].by_seed), _percent(cells, retentions)[0])
        below: Any = {"xytext": (0, -7), "textcoords": "offset points", "rotation": 90, "ha": "center", "va": "top"}
        axes.annotate(name, (places[0], lowest), color=colour, fontsize=8, **below)
    axes.axhline(full, color=BLACK, lw=0.8, ls=(0, (1, 2)))
    axes.annotate("all tokens", (len(retentions) - 0.55, full), xytext=(0, 3), textcoords="offset points", ha="right")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.42 * (high - low), high + 0.06 * (high - low))  # room for the names
    axes.set_xticks(range(len(retentions)), [f"{100 * r:g}% kept" for r in retentions])
    axes.set_xlim(-0.5, len(retentions) - 0.5)
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="x", visible=False)
    axes.set_title(f"split {recipe.one_split}: a circle for each seed, a bar for their mean")
    return figure


def _count(results: Results) -> Figure:
    """The expected count against how many things move or flash, a line for each seed."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    ends, top = [], 0.0
    colours = (VERMILION, BLUE, GREEN, PURPLE, ORANGE)
    jobs = results.experiments["adaptive"]
    for job, colour in zip(jobs, colours, strict=False):
        result = results.of(job)
        level, _, mean, deviation = np.array(result["by_activity"]).T
        axes.fill_between(level, mean - deviation, mean + deviation, color=colour, alpha=0.12, lw=0)
        top = max(top, float((mean + deviation).max()))
        axes.plot(level, mean, "o-", color=colour, ms=4)
        ends.append((f"seed {job.tags['seed']}, rank correlation {result['correlation']:.2f}", mean[-1], colour))
    right = results.of(jobs[0])["by_activity"][-1][0]  # the videos are the same for all
    axes.set_xlim(-0.2, right * 1.5)
    axes.set_ylim(0, 1.08 * top)
    axes.set_xticks(range(int(right) + 1))
    _label_ends(axes, right, ends)
    axes.set_xlabel("things that move or flash in the video")
    axes.set_ylabel("expected count, tokens")
    axes.set_title("mean, and standard deviation over videos")
    return figure


def _advantages(results: Results) -> Figure:
    """Retention and accuracy over the weight of the compression reward; crosses where a run collapsed."""
    sweep = results.sweep
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = np.asarray(figure.subplots(2, 2, sharex=True, sharey="row"))
    named: list[tuple[Axes, list[tuple[str, float, str]]]] = []
    colours = dict(zip(STRATEGIES, (BLACK, ORANGE, SKY, GREEN, PURPLE, VERMILION), strict=True))
    for column, scale in enumerate((False, True)):
        for row, what in enumerate(("ratio", "accuracy")):
            axes, ends = panels[row, column], []
            for strategy, colour in colours.items():
                kind = strategy, scale
                weights = [w for w in sweep.weights if not all(one.collapsed for one in sweep.at(kind, w))]
                mean = [_mean_of_survivors(sweep.at(kind, weight), what) for weight in weights]
                axes.plot(weights, mean, "o-", color=colour, lw=1.3, ms=3)
                dead = [one for one in sweep.trainings if one.kind == kind and one.collapsed]
                places = [max(_LEAST_SHOWN, 100 * getattr(one, what)) for one in dead]
                axes.plot([one.weight for one in dead], places, "x", color=colour, ms=6)
                ends += [(strategy, mean[-1], colour)] if weights[-1:] == [sweep.weights[-1]] else []
            _log_axis(axes, sweep.weights, lambda value: f"{value:g}")
            axes.set_xlim(sweep.weights[0] * 0.85, sweep.weights[-1] * 3.2)
            named.append((axes, ends))
        panels[0, column].set_title("divided by the standard deviation" if scale else "not divided")
        panels[0, column].set_yscale("log")
        panels[0, column].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panels[0, column].axhline(100 * Results.MOST_RATIO, color=GREY, lw=0.8, ls="--")
        panels[1, column].set_xlabel("weight of the compression reward")
    panels[0, 0].set_ylabel("kept, %")
    panels[1, 0].set_ylabel("accuracy, %")
    for axes, ends in named:  # once all limits are known
        _label_ends(axes, sweep.weights[-1], ends)
    text = f"means over the seeds that did not collapse; a cross for each that did (kept: {_LEAST_SHOWN}% or less)"
    figure.suptitle(text, fontsize=9, x=0.01, ha="left")
    return figure


_LEAST_SHOWN = 0.1  # percent


def _mean_of_survivors(trainings: Sequence[Training], what: str) -> float:
    return 100 * float(np.mean([getattr(one, what) for one in trainings if not one.collapsed]))
