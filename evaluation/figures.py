"""The figures of the document, from the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from evaluation.results import Cells, Results
from score_video.drawing.charts import spread_labels
from score_video.files import output_file

# Okabe and Ito's colours, told apart by colour-blind people too
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
_DOTTED: Any = {"color": BLACK, "lw": 0.8, "ls": (0, (1, 2))}
_LEAST_SHOWN = 0.1  # percent


def draw_figures(results: Results, docs: Path) -> list[Path]:
    """Draws those whose results are there; returns the files."""
    figures: dict[Callable[[Results], Figure], tuple[str, ...]] = {
        _retention: ("methods", "policy"),
        _needed: ("methods", "policy"),
        _state: ("state",),
        _count: ("adaptive",),
        _advantages: ("advantages",),
    }
    drawn = []
    with matplotlib.rc_context(fname=Path(__file__).with_suffix(".mplstyle")):
        for draw, experiments in figures.items():
            if results.complete(*experiments):
                drawn.append(docs / f"results-{draw.__name__.strip('_')}.png")
                with output_file(drawn[-1]) as temporary:
                    draw(results).savefig(temporary, format="png", dpi=130)
    return drawn


def _panels(size: tuple[float, float], rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Figure, Any]:
    """A figure and its axes, [rows, columns]."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _label_ends(axes: Axes, x: float, labels: Sequence[tuple[str, float, str]]) -> None:
    """Names lines at their right ends: (name, y, colour)."""
    # in parts of the height: the axis may be logarithmic
    to_height = axes.transScale + axes.transLimits
    heights = [to_height.transform((x, y))[1] for _, y, _ in labels]
    places = [to_height.inverted().transform((0, h))[1] for h in spread_labels(heights, 0.058, 0, 1)]
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
    style: Any = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 7.5, "bbox": box}
    for (name, _, colour), place in zip(labels, places, strict=True):
        axes.annotate(name, (x, place), color=colour, **style)


def _log_axis(axes: Axes, ticks: Iterable[float], unit: str = "", scale: float = 1) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:g}{unit}"))


def _percent(cells: Cells) -> list[float]:
    return [100 * cell.accuracy for cell in cells.values()]


def _retention(results: Results) -> Figure:
    """Accuracy against retention: policy, the best methods overall, random, oracle, all tokens."""
    splits, retentions, name = results.splits, results.recipe["retentions"], results.main
    methods = {split: results.methods(split) for split in splits}
    shown = list(zip(_best_overall(list(methods.values())), (BLUE, GREEN, PURPLE), strict=True))
    across = (len(splits) + 1) // 2
    figure, panels = _panels((11, 6.6), 2, across)
    for number, (axes, split) in enumerate(zip(panels.ravel(), splits, strict=False)):
        full = 100 * results.full(split).accuracy
        lines = [
            (name, results.policy("policy", split), VERMILION, "-", 2.4),
            (f"{name}, topk", results.policy("policy", split, "topk"), VERMILION, ":", 1.4),
            *((one, methods[split][one], colour, "-", 1.2) for one, colour in shown),
            ("random", methods[split]["random"], GREY, "-", 1.2),
            ("oracle", results.methods(split, oracle=True)["oracle"], BLACK, "--", 1.0),
        ]
        for _, cells, colour, style, width in lines:
            axes.plot(retentions, _percent(cells), style, color=colour, lw=width, marker="o", ms=2 + width)
        axes.axhline(full, **_DOTTED)
        axes.margins(y=0.08)
        axes.set_title(split)
        if number % across == 0:
            axes.set_ylabel("accuracy, %")
        axes.set_xlim(retentions[0] * 0.9, retentions[-1] * (retentions[-1] / retentions[0]) ** 0.55)
        _log_axis(axes, retentions, "%", 100)
        axes.set_xlabel("tokens kept")
        ends = [(label, _percent(cells)[-1], colour) for label, cells, colour, _, _ in lines]
        _label_ends(axes, retentions[-1], [*ends, ("all tokens", full, BLACK)])
    for axes in panels.ravel()[len(splits) :]:
        axes.set_axis_off()
    return figure


def _needed(results: Results) -> Figure:
    """The retention that is needed for 99% of the full accuracy: a row for each split, with intervals."""
    splits = results.splits
    methods = {split: results.methods(split) for split in splits}
    shown = _best_overall(list(methods.values()))
    figure, ((axes,),) = _panels((8, 0.9 + 0.75 * len(splits)))
    lines = [(results.main, VERMILION), *zip(shown, (BLUE, GREEN, PURPLE), strict=False), ("random", GREY)]
    for (place, (name, colour)), (row, split) in product(enumerate(lines), enumerate(splits)):
        cells = results.policy("policy", split) if place == 0 else methods[split][name]
        (found,) = results.needed(cells, split, 0.99)
        y = len(splits) - row + 0.3 - 0.15 * place
        axes.plot([100 * found.low, 100 * found.high], [y, y], color=colour, lw=1.6)
        axes.plot(100 * found.value, y, "o", color=colour, ms=5, label=name if row == 0 else None)
    _log_axis(axes, (1, 2, 5, 10, 25, 50, 100), "%")
    axes.set_yticks([len(splits) - row for row in range(len(splits))], splits)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("tokens needed for 99% of the accuracy on all of them")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _best_overall(by_split: list[dict[str, Cells]]) -> list[str]:
    """The three methods with the highest mean accuracy over splits and retentions; each by its better selection."""
    mean = {name: np.mean([_percent(of[name]) for of in by_split]) for name in by_split[0]}
    shown: dict[str, str] = {}
    for name in sorted(mean, key=lambda name: -mean[name]):
        shown.setdefault(name.split(",")[0], name)
    return [name for method, name in shown.items() if method != "random"][:3]


def _state(results: Results) -> Figure:
    """Accuracy with parts of the state left out: a mark for each seed, a bar for the mean."""
    split, retentions = results.recipe["one_split"], results.recipe["few_retentions"]
    figure, ((axes,),) = _panels((7, 3.2))
    for number, (name, colour) in enumerate(
        zip(results.arms("state", "state"), (VERMILION, BLUE, GREEN, PURPLE), strict=True)
    ):
        cells = results.policy("state", split, state=name)
        places = np.arange(len(retentions)) + (number - 1.5) * 0.19
        axes.hlines(_percent(cells), places - 0.08, places + 0.08, color=colour, lw=3)
        seeds = [[100 * share for share in cell.by_seed] for cell in cells.values()]
        for place, of_place in zip(places, seeds, strict=True):
            axes.plot([place] * len(of_place), of_place, "o", color=colour, ms=3.5, mfc="white", zorder=3)
        below: Any = {"xytext": (0, -7), "textcoords": "offset points", "rotation": 90, "ha": "center", "va": "top"}
        axes.annotate(name, (places[0], min(seeds[0])), color=colour, fontsize=8, **below)
    full = 100 * results.full(split).accuracy
    axes.axhline(full, **_DOTTED)
    axes.annotate("all tokens", (len(retentions) - 0.55, full), xytext=(0, 3), textcoords="offset points", ha="right")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.42 * (high - low), high + 0.06 * (high - low))  # room for the names
    axes.set_xticks(range(len(retentions)), [f"{100 * r:g}% kept" for r in retentions])
    axes.set_xlim(-0.5, len(retentions) - 0.5)
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="x", visible=False)
    axes.set_title(f"split {split}: a circle for each seed, a bar for their mean")
    return figure


def _count(results: Results) -> Figure:
    """The expected count against how many things move or flash, a line for each seed."""
    figure, ((axes,),) = _panels((6, 3.4))
    ends, top, right = [], 0.0, 0.0
    colours = (VERMILION, BLUE, GREEN, PURPLE, ORANGE)
    for seed, result, colour in zip(results.recipe["seeds"], results.of("adaptive"), colours, strict=False):
        level, _, mean, deviation = np.array(result["by_activity"]).T
        axes.fill_between(level, mean - deviation, mean + deviation, color=colour, alpha=0.12, lw=0)
        axes.plot(level, mean, "o-", color=colour, ms=4)
        ends.append((f"seed {seed}, rank correlation {result['correlation']:.2f}", mean[-1], colour))
        top, right = max(top, (mean + deviation).max()), level[-1]  # the videos are the same for all
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
    weights = sorted(results.sweep["compression_weight"].unique())
    figure, panels = _panels((10, 6.4), 2, 2, sharex=True, sharey="row")
    ends: dict[Axes, list[tuple[str, float, str]]] = {axes: [] for axes in panels.ravel()}
    for (column, of_scale), (row, what) in product(
        results.sweep.groupby("scale_rewards"), enumerate(("ratio", "accuracy"))
    ):
        axes = panels[row, int(column)]
        colours = (BLACK, ORANGE, SKY, GREEN, PURPLE, VERMILION)
        for (strategy, of), colour in zip(of_scale.groupby("advantage", sort=False), colours, strict=False):
            mean = 100 * of[~of["collapsed"]].groupby("compression_weight")[what].mean()
            axes.plot(mean.index, mean, "o-", color=colour, lw=1.3, ms=3)
            dead = of[of["collapsed"]]
            axes.plot(dead["compression_weight"], (100 * dead[what]).clip(lower=_LEAST_SHOWN), "x", color=colour, ms=6)
            ends[axes] += [(strategy, mean[weights[-1]], colour)] if weights[-1] in mean.index else []
        _log_axis(axes, weights)
        axes.set_xlim(weights[0] * 0.85, weights[-1] * 3.2)
    for axes, title in zip(panels[0], ("not divided", "divided by the standard deviation"), strict=True):
        axes.set_title(title)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.axhline(100 * Results.MOST_RATIO, color=GREY, lw=0.8, ls="--")
    for axes in panels[1]:
        axes.set_xlabel("weight of the compression reward")
    panels[0, 0].set_ylabel("kept, %")
    panels[1, 0].set_ylabel("accuracy, %")
    for axes, labels in ends.items():  # once all limits are known
        _label_ends(axes, weights[-1], labels)
    text = f"means over the seeds that did not collapse; a cross for each that did (kept: {_LEAST_SHOWN}% or less)"
    figure.suptitle(text, fontsize=9, x=0.01, ha="left")
    return figure
