"""The figures of the document, from the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.results import MOST_RATIO, Cells, Results
from score_video.drawing.accuracy_panels import Panel, draw_accuracy_panels
from score_video.files import output_file

# Okabe and Ito's colours, told apart by colour-blind people too
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#000000")
_DOTTED: Any = {"color": "black", "lw": 0.8, "ls": ":"}
_LEAST_SHOWN = 0.1  # percent


def draw_figures(results: Results, docs: Path) -> list[Path]:
    """Draws those whose results are there; returns the files."""
    figures: dict[Callable[[Results, Path], None], tuple[str, ...]] = {
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
                    draw(results, temporary)
    return drawn


@contextmanager
def _figure(path: Path, size: tuple[float, float], legend: bool = True) -> Iterator[Figure]:
    """An empty one, written when it has been drawn."""
    figure = Figure(figsize=size, layout="constrained")
    yield figure
    if legend:
        figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, format="png", dpi=130)


def _log_axis(axes: Axes, ticks: list[float], text: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ticks, [text.format(tick) for tick in ticks])
    axes.minorticks_off()


def _retention(results: Results, path: Path) -> None:
    """Accuracy against retention: policy, the best methods overall, random, oracle, all tokens."""
    panels = []
    for split in results.splits:
        cells: dict[str, Cells] = {
            results.main: results.policy("policy", split),
            f"{results.main}, topk": results.policy("policy", split, "topk"),
            **{name: results.methods(split)[name] for name in [*_best_overall(results), "random"]},
            **results.methods(split, oracle=True),
        }
        lines = {name: [(at, answers.accuracy, None) for at, answers in of.items()] for name, of in cells.items()}
        panels.append(Panel(split, results.full(split).accuracy, lines))
    draw_accuracy_panels(path, panels)


def _needed(results: Results, path: Path) -> None:
    """The retention that is needed for 99% of the full accuracy: a row for each split, with intervals."""
    splits, names = results.splits, [results.main, *_best_overall(results), "random"]
    with _figure(path, (8, 0.9 + 0.75 * len(splits))) as figure:
        axes = figure.add_subplot()
        for (place, name), (row, split) in product(enumerate(names), enumerate(splits)):
            cells = results.policy("policy", split) if name == results.main else results.methods(split)[name]
            (found,) = results.needed(cells, split, 0.99)
            y, colour = row - 0.3 + 0.15 * place, COLOURS[place]
            axes.plot([100 * found.low, 100 * found.high], [y, y], color=colour, lw=1.6)
            axes.plot(100 * found.value, y, "o", color=colour, ms=5, label=None if row else name)
        _log_axis(axes, [1, 2, 5, 10, 25, 50, 100], "{:g}%")
        axes.set_yticks(range(len(splits)), splits)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("tokens needed for 99% of the accuracy on all of them")


def _best_overall(results: Results) -> list[str]:
    """The three methods with the highest mean accuracy over splits and retentions; each by its better selection."""
    by_split = [results.methods(split) for split in results.splits]
    mean = {name: np.mean([cell.accuracy for of in by_split for cell in of[name].values()]) for name in by_split[0]}
    shown: dict[str, str] = {}
    for name in sorted(mean, key=lambda name: -mean[name]):
        shown.setdefault(name.split(",")[0], name)
    return [name for method, name in shown.items() if method != "random"][:3]


def _state(results: Results, path: Path) -> None:
    """Accuracy with parts of the state left out: a mark for each seed, a bar for the mean."""
    split, retentions = results.recipe["one_split"], results.recipe["few_retentions"]
    with _figure(path, (7, 3.2)) as figure:
        axes = figure.add_subplot()
        for number, name in enumerate(results.arms("state", "state")):
            for place, cell in enumerate(results.policy("state", split, state=name).values()):
                x, colour = place + (number - 1.5) * 0.19, COLOURS[number]
                axes.hlines(100 * cell.accuracy, x - 0.08, x + 0.08, color=colour, lw=3, label=None if place else name)
                seeds = 100 * np.array(cell.by_seed)
                axes.plot(np.full(len(seeds), x), seeds, "o", color=colour, ms=3.5, mfc="white")
        axes.axhline(100 * results.full(split).accuracy, **_DOTTED, label="all tokens")
        axes.set_xticks(range(len(retentions)), [f"{100 * r:g}% kept" for r in retentions])
        axes.set_ylabel("accuracy, %")
        axes.grid(axis="x", visible=False)
        axes.set_title(f"split {split}: a circle for each seed, a bar for their mean")


def _count(results: Results, path: Path) -> None:
    """The expected count against how many things move or flash, a line for each seed."""
    with _figure(path, (6, 3.4), legend=False) as figure:
        axes = figure.add_subplot()
        for seed, result, colour in zip(results.recipe["seeds"], results.of("adaptive"), COLOURS, strict=False):
            level, _, mean, deviation = np.array(result["by_activity"]).T
            axes.fill_between(level, mean - deviation, mean + deviation, color=colour, alpha=0.12, lw=0)
            told = f"seed {seed}, rank correlation {result['correlation']:.2f}"
            axes.plot(level, mean, "o-", color=colour, ms=4, label=told)
            axes.set_xticks(level)  # the videos are the same for all
        axes.set_ylim(bottom=0)
        axes.set_xlabel("things that move or flash in the video")
        axes.set_ylabel("expected count, tokens")
        axes.set_title("mean, and standard deviation over videos")
        axes.legend(loc="lower right")


def _advantages(results: Results, path: Path) -> None:
    """Retention and accuracy over the weight of the compression reward; crosses where a run collapsed."""
    with _figure(path, (10, 6.4)) as figure:
        panels = figure.subplots(2, 2, sharex=True, sharey="row")
        by_scale = results.sweep.groupby("scale_rewards")
        for (column, of_scale), (row, what) in product(by_scale, enumerate(("ratio", "accuracy"))):
            axes = panels[row, int(column)]
            for (strategy, of), colour in zip(of_scale.groupby("advantage", sort=False), COLOURS, strict=False):
                mean = 100 * of[~of["collapsed"]].groupby("compression_weight")[what].mean()
                axes.plot(mean, "o-", color=colour, lw=1.3, ms=3, label=None if row or column else strategy)
                dead = of[of["collapsed"]]
                share = (100 * dead[what]).clip(lower=_LEAST_SHOWN)
                axes.plot(dead["compression_weight"], share, "x", color=colour, ms=6)
            _log_axis(axes, sorted(of_scale["compression_weight"].unique()), "{:g}")
        for axes, title in zip(panels[0], ("not divided", "divided by the standard deviation"), strict=True):
            axes.set_title(title)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.axhline(100 * MOST_RATIO, **_DOTTED)
        for axes in panels[1]:
            axes.set_xlabel("weight of the compression reward")
        panels[0, 0].set_ylabel("kept, %")
        panels[1, 0].set_ylabel("accuracy, %")
        text = f"means over the seeds that did not collapse; a cross for each that did (kept: {_LEAST_SHOWN}% or less)"
        figure.suptitle(text, fontsize=9, x=0.01, ha="left")
