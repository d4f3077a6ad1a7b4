"""Writes docs/results.md, results-tasks.md and the figures from the results, and from nothing else.

The words, the tables and what was expected are in evaluation/templates; every number in them is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from evaluation.experiments import SELECTIONS
from evaluation.figures import draw_figures
from evaluation.jobs import Code
from evaluation.results import LEAST_TOKENS, MOST_RATIO, TIMED, Results, gains
from evaluation.work import TIMES
from score_video.composite.world import TASK_NAMES as COMPOSITE_TASKS
from score_video.files import output_file
from score_video.miniature.world import TASKS
from score_video.rl.config import ScoreConfig
from score_video.statistics import spread


def percent(share: float, digits: int = 1, of: float = 1.0) -> str:
    """0.1234 -> 12.3; a dash where there is no number."""
    return "-" if math.isnan(share) else f"{100 * (share / of):.{digits}f}"


def at(retention: float) -> str:
    """0.05 -> 5%."""
    return f"{percent(retention, 0)}%"


def settings(values: Mapping[str, object]) -> str:
    """`name` value, ..."""
    return ", ".join(f"`{name}` {value}" for name, value in values.items())


def prefixed(texts: Iterable[str | float], prefix: str) -> list[str]:
    """The texts or numbers, each after the prefix."""
    return [prefix + (text if isinstance(text, str) else f"{text:g}") for text in texts]


def row(*cells: object) -> str:
    """A row of a table; several cells where one of them is a list of some kind."""
    texts = [[cell] if isinstance(cell, str) or not isinstance(cell, Iterable) else cell for cell in cells]
    return f"| {' | '.join(str(text) for of in texts for text in of)} |"


def head(*cells: object) -> str:
    """The head of a table, the first column to the left and the rest to the right."""
    names = row(*cells)
    return f"{names}\n| --- |{' ---: |' * (names.count(' |') - 1)}"


def made(kept: Iterable[Mapping[str, Any]]) -> list[str]:
    """Where results were made: a line for each machine and its versions."""
    where = ["cpu", "cores", "torch", "transformers", "python", "score"]
    frame = pd.DataFrame([result["made"] for result in kept], columns=[*where, "date", "commit"])
    text = "{}, {} cores; torch {}, transformers {}, Python {}, score-video {}; {}; commit {}."
    texts = []
    for machine, of in frame.groupby(where, sort=False):
        dates = " to ".join(dict.fromkeys((of["date"].min(), of["date"].max())))
        texts.append(text.format(*machine, dates, ", ".join(sorted(of["commit"].unique()))))
    return texts


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters.update(percent=percent, at=at, spread=spread, settings=settings, prefixed=prefixed)
_TEMPLATES.globals.update(
    row=row,
    head=head,
    made=made,
    gains=gains,
    TASKS=np.array([task.name for task in TASKS]),
    COMPOSITE_TASKS=COMPOSITE_TASKS,
    LEAST_TOKENS=LEAST_TOKENS,
    MOST_RATIO=MOST_RATIO,
    TIMED=TIMED,
    TIMES=TIMES,
    SELECTIONS=SELECTIONS,
    ScoreConfig=ScoreConfig,
)


def render(name: str, results: Results, code: Code, lacking: str) -> str:
    """A template of evaluation/templates, filled in; the arguments are those of :func:`write_report`."""
    dirty = sorted({file for kept in results.kept.values() for file in kept["made"]["changed"]})
    heads = [at(retention) for retention in results.recipe["retentions"]]
    values = {"results": results, "recipe": results.recipe, "code": code, "lacking": lacking, "dirty": dirty}
    return _TEMPLATES.get_template(name).render(values, heads=heads)


def write_report(results: Results, code: Code, lacking: str, docs: Path) -> list[Path]:
    """Writes what can be written; returns the files.

    Args:
        results: what the documents tell of.
        code: what they were made by.
        lacking: the results that there are not, in words, for the top of the document; "" if none.
        docs: the folder to write into; made if it is not there.
    """
    docs.mkdir(parents=True, exist_ok=True)
    names = [name for name, needed in results.recipe["documents"].items() if not needed or results.complete(*needed)]
    for name in names:
        with output_file(docs / name) as temporary:
            temporary.write_text(render(f"{name}.j2", results, code, lacking))
    figures = draw_figures(results, docs) if results.recipe["world"] == "miniature" else []
    return [*(docs / name for name in names), *figures]
