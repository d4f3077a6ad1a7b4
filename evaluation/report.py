"""Writes docs/results.md, results-tasks.md and the figures from the results, and from nothing else.

The words are in evaluation/templates; every number in them is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from evaluation import text
from evaluation.checks import all_checks
from evaluation.experiments import CURRICULA, OURS, RECIPES, SAME_WHEN_COUNTED, STATES
from evaluation.figures import draw_figures
from evaluation.jobs import Code
from evaluation.results import Cells, Results, Training
from evaluation.statistics import Difference
from evaluation.text import accuracy, at, kind_name, mean_and_spread, percent, points, signed, table
from score_video.files import output_file
from score_video.miniature.world import TASKS

SHARES = (0.95, 0.98, 0.99, 0.995)
"""Of the full accuracy, for the tables of what is needed."""

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def write_report(results: Results, code: Code, lacking: str, docs: Path) -> list[Path]:
    """Writes what can be written; returns the files.

    Args:
        results: to be told of.
        code: by which they were made.
        lacking: the results that there are not, in words, for the top of the document; "" if none.
        docs: the folder to write into; made if it is not there.
    """
    docs.mkdir(parents=True, exist_ok=True)
    tables = Tables(results)
    names = ("results.md", *(["results-tasks.md"] if results.complete("methods", "policy") else []))
    for name in names:
        rendered = _TEMPLATES.get_template(f"{name}.j2").render(
            tables=tables, results=results, recipe=results.recipe, code=code, lacking=lacking, text=text, STATES=STATES
        )
        with output_file(docs / name) as temporary:
            temporary.write_text(rendered)
    return [*(docs / name for name in names), *draw_figures(results, docs)]


class Tables:
    """The tables of the document, and the sentences that depend on what came out."""

    def __init__(self, results: Results) -> None:
        self.results, self.recipe = results, results.recipe

    def made(self) -> list[str]:
        """Where the results were made: a line for each machine and its versions."""
        lines: dict[str, list[Mapping[str, Any]]] = {}
        for kept in self.results.kept.values():
            made = kept["made"]
            where = (
                f"{made['cpu']}, {made['cores']} cores; torch {made['torch']}, transformers {made['transformers']}, "
                f"Python {made['python']}, score-video {made['score']}"
            )
            lines.setdefault(where, []).append(made)
        texts = []
        for where, several in lines.items():
            dates, commits = (sorted({str(made[name]) for made in several}) for name in ("date", "commit"))
            texts.append(f"{where}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; commit {', '.join(commits)}.")
        return texts

    def dirty(self) -> list[str]:
        """Files in which the code that made a result differed from the commit."""
        return sorted({name for kept in self.results.kept.values() for name in kept["made"]["changed"]})

    def checks(self) -> str:
        """What was expected, and what came."""
        words = {True: "met", False: "**not met**", None: ""}
        rows = [[check.expected, words[check.met], check.measured] for check in all_checks(self.results)]
        return table(["expected", "", "measured"], rows)

    def reader(self) -> str:
        """The reader on all tokens."""
        rows = []
        for split in self.results.splits:
            full = self.results.full(split)
            tasks = [percent(share) for share in full.answers.by_task]
            rows.append([split, *tasks, accuracy(full), f"{int(full.answers.asked.sum()):,}"])
        return table(["split", *(task.name for task in TASKS), "all", "questions"], rows)

    def _series(self, split: str) -> dict[str, Cells]:
        """Everything tested on a split: policies by both selections, methods without training, the oracle."""
        policies = {
            f"**{name}, {selection}**": self.results.policy("policy", split, selection, policy=name)
            for name in self.recipe.policies
            for selection in ("systematic", "topk")
        }
        return policies | self.results.methods(split) | self.results.methods(split, oracle=True)

    def split(self, split: str) -> str:
        """The policy and every method without training."""
        full = self.results.full(split).accuracy
        rows = []
        for name, cells in self._series(split).items():
            of = [cells[r] for r in self.recipe.retentions]
            rows.append([name, *map(accuracy, of), *(percent(cell.accuracy / full) for cell in of)])
        heads = [at(retention) for retention in self.recipe.retentions]
        return table(["accuracy, %", *heads, *(f"share of full at {head}" for head in heads)], rows)

    def needed(self, split: str) -> str:
        """The retention that each needs for shares of the full accuracy."""
        rows = [
            [name, *(text.needed(self.results.needed(cells, split, share)) for share in SHARES)]
            for name, cells in self._series(split).items()
        ]
        return table(["keeps of the full accuracy", *(f"{100 * share:g}%" for share in SHARES)], rows)

    def fewer(self, split: str, share: float) -> str:
        """How many times fewer tokens the policy needs than the best method without training, in words."""
        policy = self.results.needed(self.results.policy("policy", split, policy=self.results.main), split, share)
        methods = {
            name: self.results.needed(cells, split, share) for name, cells in self.results.methods(split).items()
        }
        best = min(methods, key=lambda name: methods[name].value)
        times = methods[best].value / policy.value
        return f"{split}: {text.needed(policy)} against {text.needed(methods[best])} of {best}, {times:.1f} times fewer"

    def tasks(self, split: str, retention: float) -> str:
        """The same by task, at one retention."""
        full = self.results.full(split).answers
        shown = [number for number in range(len(TASKS)) if not np.isnan(full.by_task[number])]
        answers = {"all tokens": full}
        answers |= {name: cells[retention].answers for name, cells in self._series(split).items()}
        rows = [[name, *(percent(of.by_task[n]) for n in shown), percent(of.accuracy)] for name, of in answers.items()]
        return table([f"at {at(retention)}, accuracy in %", *(TASKS[n].name for n in shown), "all"], rows)

    def paper(self, selection: str) -> str:
        """The paper's recipe, with pieces exchanged, and ours."""
        split = self.recipe.one_split
        rows = []
        for name in (*RECIPES, OURS):
            cells = self.results.policy("paper", split, selection, recipe=name)
            needed = [text.needed(self.results.needed(cells, split, share)) for share in (0.95, 0.99)]
            rows.append([name, *(accuracy(cells[r]) for r in self.recipe.retentions), *needed])
        heads = [at(retention) for retention in self.recipe.retentions]
        return table([selection, *heads, "needed for 95%", "needed for 99%"], rows)

    def curriculum(self) -> str:
        """Pseudo-videos first, against none."""
        rows = []
        for name, gains in self.results.curriculum_gains().items():
            for kind in CURRICULA:
                cells = self.results.policy("curriculum", self.recipe.one_split, setting=name, curriculum=kind)
                texts = [signed(gain) if kind != "none" else "" for gain in gains.values()]
                rows.append([name, kind, *map(accuracy, cells.values()), *texts])
        heads = [at(retention) for retention in self.recipe.few_retentions]
        return table(["setting", "curriculum", *heads, *(f"difference at {head}" for head in heads)], rows)

    def curriculum_where(self, helps: bool) -> str:
        """Where it helps, or harms, by more than two standard errors."""
        gains = self.results.curriculum_gains()
        clear = [
            f"{name} at {at(retention)}"
            for name, of in gains.items()
            for retention, gain in of.items()
            if (gain if helps else -gain).clear
        ]
        return "; ".join(clear) or "nowhere"

    def sweep(self) -> str:
        """Strategies by weight: kept and accuracy."""
        sweep = self.results.sweep
        rows = []
        for kind, stable in sweep.stable_weights().items():
            cells = [self._sweep_cell(sweep.at(kind, weight)) for weight in sweep.weights]
            rows.append([kind_name(kind), *cells, f"{stable} of {len(sweep.weights)}"])
        return table(["strategy", *(f"weight {weight:g}" for weight in sweep.weights), "stable weights"], rows)

    def _sweep_cell(self, trainings: list[Training]) -> str:
        alive = [one for one in trainings if not one.collapsed]
        lost = len(trainings) - len(alive)
        if not alive:
            return f"all {lost} collapsed"
        note = f" ({lost} of {len(trainings)} collapsed)" if lost else ""
        ratio, share = (float(np.mean([getattr(one, name) for one in alive])) for name in ("ratio", "accuracy"))
        return f"{percent(ratio)} / {percent(share)}{note}"

    def above_curve(self) -> str:
        """Strategies at equal retention; "" where too few trainings are left for a curve."""
        rows = []
        for kind, difference in self.results.sweep.above_curve().items():
            alive = self.results.sweep.survivors(kind)
            correlations = mean_and_spread([one.correlation for one in alive])
            rows.append([kind_name(kind), signed(difference), str(len(alive)), correlations])
        head = ["strategy", "points above the curve", "trainings", "rank correlation of count and content"]
        return table(head, rows) if rows else ""

    def stable(self, scale: bool) -> str:
        """At how many weights each strategy is stable, with or without division."""
        counts = self.results.sweep.stable_weights().items()
        return ", ".join(f"{strategy} {count}" for (strategy, of), count in counts if of == scale)

    def best_split(self) -> str:
        """What splitting the reward gains at equal retention, in words; "" where it cannot be told."""
        above = self.results.sweep.above_curve()
        single = above.get(("leave_one_out", False))
        whole = ("leave_one_out", "joint")
        splits = {kind: above[kind] for kind in above if SAME_WHEN_COUNTED.get(kind, kind[0]) not in whole}
        if not (single and splits):
            return ""
        best = max(splits, key=lambda kind: splits[kind].value)
        error = float(np.hypot(splits[best].error, single.error))
        gain = Difference(splits[best].value - single.value, error)
        return (
            f"At equal retention the best of {len(splits)} that split, {kind_name(best)}, lies {signed(gain)} points "
            f"above leave_one_out, which is {'more' if gain.clear else 'no more'} than two standard errors."
        )

    def adaptive(self) -> str:
        """Counts that follow the video, against the same count for all."""
        rows = []
        for retention, adaptive, fixed in self.results.adaptive_gains():
            seeds = ", ".join(points(a - f) for a, f in zip(adaptive.by_seed, fixed.by_seed, strict=True))
            gain = signed(adaptive.answers.minus(fixed.answers))
            rows.append([at(retention), accuracy(adaptive), accuracy(fixed), gain, seeds])
        return table(["mean", "adaptive", "fixed", "difference", "by seed"], rows)

    def tower(self, tower: str, split: str) -> str:
        """Policies and methods without training on a test tower."""
        never_seen, own = (self.results.policy("towers", split, reader=tower, tower=of) for of in ("never seen", tower))
        policies = {
            "**relative, tower never seen, systematic**": never_seen,
            "residual, trained on this tower, systematic": own,
        }
        methods = [self.results.methods(split, "towers", tower, oracle=oracle) for oracle in (False, True)]
        series = policies | methods[0] | methods[1]
        retentions = self.recipe.retentions
        rows = [[name, *(accuracy(cells[r]) for r in retentions)] for name, cells in series.items()]
        return table(["accuracy, %", *map(at, retentions)], rows)
