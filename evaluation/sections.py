"""The sections of the document. Each takes the results and gives its lines; every number in them is computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evaluation.count_sections import adaptive, advantages
from evaluation.experiments import CURRICULA, STATES, Plan, missing_towers
from evaluation.found import Cell, Found, Series
from evaluation.tables import accuracy, percent, retention_heads, signed, table
from evaluation.verdicts import curriculum_differences, helps, rot_differences
from score_video.miniature.world import TASKS

Lines = list[str]


def reader(found: Found) -> Lines:
    """The reader on all tokens."""
    rows = []
    for split in found.plan.splits:
        answers = found.full(split).answers
        tasks = [percent(share) for share in answers.by_task]
        rows.append([split, *tasks, accuracy(found.full(split)), f"{int(answers.asked.sum()):,}"])
    return table(["split", *(task.name for task in TASKS), "all", "questions"], rows)


def rivals(found: Found) -> Lines:
    """The policy and every rival, split by split."""
    lines = [
        "![Accuracy against retention](results-retention.png)",
        "",
        "Rows below the policy are in order at 10%. Methods with a score are there twice: selected by **topk**, and by",
        "**systematic** selection, with which the policy is deployed; so the part of the score and the part of the",
        "selection are told apart. Tables for each task are in [results-tasks.md](results-tasks.md).",
        "",
    ]
    retentions = list(found.plan.recipe.retentions)
    for split in found.plan.splits:
        full = found.full(split)
        rows = []
        for series in split_series(found, split):
            shares = [percent(series.cells[r].accuracy / full.accuracy) for r in retentions]
            cells = [f"{accuracy(series.cells[r])}" for r in retentions]
            rows.append([series.name, *cells, *shares])
        lines += [f"### Split {split}", "", f"All tokens: {accuracy(full)}.", ""]
        heads = retention_heads(retentions)
        lines += table(["accuracy, %", *heads, *(f"share of full at {head}" for head in heads)], rows)
    return lines


def split_series(found: Found, split: str) -> list[Series]:
    """Everything tested on a split: policies by both laws, rivals, the oracle."""
    names = found.plan.recipe.policies
    policies = [
        Series(f"**{name}, {law}**", found.policy("policy", split, law, policy=name))
        for name in names
        for law in ("systematic", "topk")
    ]
    return [*policies, *found.rivals(split), *found.rivals(split, oracle=True)]


def tasks(found: Found) -> Lines:
    """The tables for each task, a document of their own."""
    lines = []
    for split in found.plan.splits:
        full = found.full(split).answers.by_task
        shown = [number for number in range(len(TASKS)) if not np.isnan(full[number])]
        lines += [f"## Split {split}", ""]
        for retention in found.plan.recipe.retentions:
            rows = [["all tokens", *(percent(full[n]) for n in shown), percent(found.full(split).accuracy)]]
            for series in split_series(found, split):
                answers = series.cells[retention].answers
                rows.append([series.name, *(percent(answers.by_task[n]) for n in shown), percent(answers.accuracy)])
            head = f"at {percent(retention, 0)}%, accuracy in %"
            lines += table([head, *(TASKS[n].name for n in shown), "all"], rows)
    return lines


def _compared(rows: dict[str, dict[float, Cell]], base: str, head: str) -> Lines:
    """Rows of accuracies by retention, each with its difference to the row ``base``."""
    retentions = list(rows[base])
    text = []
    for name, cells in rows.items():
        differences = [
            "" if name == base else signed(cells[r].answers.minus(rows[base][r].answers)) for r in retentions
        ]
        text.append([name, *(accuracy(cells[r]) for r in retentions), *differences])
    heads = retention_heads(retentions)
    return table([head, *heads, *(f"difference at {head}" for head in heads)], text)


def state(found: Found) -> Lines:
    """Parts of the state left out."""
    split = found.plan.recipe.one_split
    rows = {name: found.policy("state", split, state=name) for name in STATES}
    return [
        f"Policies trained and tested on the split {split}.",
        "",
        "![Parts of the state](results-state.png)",
        "",
        *_compared(rows, "everything", "state"),
    ]


def question(found: Found) -> Lines:
    """The question seen, against not."""
    split = found.plan.recipe.one_split
    rows = {"policy": found.policy("state", split, state="everything")}
    rows["sees the question"] = found.policy("question", split)
    return [
        f"Trained and tested on the split {split}. The policy that sees the question is trained on one question of",
        "each video, and chooses anew for each question.",
        "",
        *_compared(rows, "policy", ""),
    ]


def curriculum(found: Found) -> Lines:
    """Pseudo-videos first, against none."""
    recipe = found.plan.recipe
    lines = [
        f"The first {percent(recipe.curriculum_share, 0)}% of the steps on pseudo-videos (stills of the split static,",
        "repeated, panned, zoomed, with noise), the rest on real ones, against real ones throughout. Equal total",
        f"steps; trained and tested on the split {recipe.one_split}.",
        "",
    ]
    rows, differences = [], curriculum_differences(found)
    for name, by_retention in differences.items():
        for kind in CURRICULA:
            cells = found.policy("curriculum", recipe.one_split, setting=name, curriculum=kind)
            texts = [signed(d) if kind != "none" else "" for d in by_retention.values()]
            rows.append([name, kind, *(accuracy(cell) for cell in cells.values()), *texts])
    heads = retention_heads(recipe.few_retentions)
    lines += table(["setting", "curriculum", *heads, *(f"difference at {head}" for head in heads)], rows)
    all_of = [(name, r, d) for name, by_retention in differences.items() for r, d in by_retention.items()]
    better = [f"{name} at {percent(r, 0)}%" for name, r, d in all_of if helps(d)]
    worse = [f"{name} at {percent(r, 0)}%" for name, r, d in all_of if helps((-d[0], d[1]))]
    lines.append(f"It helps, by more than two standard errors: {'; '.join(better) or 'nowhere'}.")
    lines.append(f"It harms, by more than two standard errors: {'; '.join(worse) or 'nowhere'}.")
    return [*lines, ""]


def rot(found: Found) -> Lines:
    """Compressed against full on long videos."""
    full, differences = found.full("long"), rot_differences(found)
    cells = found.policy("policy", "long", policy=next(iter(found.plan.recipe.policies)))
    rows = [
        [f"{percent(r, 0)}%", accuracy(cells[r]), signed(difference)] for r, difference in sorted(differences.items())
    ]
    return [
        f"Videos of 64 frames, all tokens: {accuracy(full)}. The policy on the same questions.",
        "",
        *table(["kept", "accuracy, %", "difference to all tokens"], rows),
    ]


def fidelity(found: Found) -> Lines:
    """Training without labels."""
    split = found.plan.recipe.one_split
    names = {"log_prob": "log-probability of the right answer", "fidelity": "closeness to the answers on all tokens"}
    rows = {f"{reward}: {what}": found.policy("fidelity", split, reward=reward) for reward, what in names.items()}
    return [
        f"Trained and tested on the split {split}; fidelity needs no labels.",
        "",
        *_compared(rows, next(iter(rows)), "reward"),
    ]


def relative(found: Found) -> Lines:
    """Towers that a policy never saw."""
    recipe, lines = found.plan.recipe, []
    retentions = list(recipe.retentions)
    for tower in recipe.test_towers:
        for split in recipe.tower_splits:
            series = [
                Series("**relative, tower never seen, systematic**", _tower(found, split, tower, "never seen")),
                Series("residual, trained on this tower, systematic", _tower(found, split, tower, tower)),
                *found.rivals(split, "relative", tower),
                *found.rivals(split, "relative", tower, oracle=True),
            ]
            full = found.full(split, tower)
            lines += [f"### Tower {tower}, split {split}", "", f"All tokens: {accuracy(full)}.", ""]
            rows = [[one.name, *(accuracy(one.cells[r]) for r in retentions)] for one in series]
            lines += table(["accuracy, %", *retention_heads(retentions)], rows)
    named = ", ".join(recipe.train_towers)
    return [f"The relative policy was trained on the towers {named}.", "", *lines]


def _tower(found: Found, split: str, reader: str, trained_on: str) -> dict[float, Cell]:
    return found.policy("relative", split, reader=reader, tower=trained_on)


def without_towers(plan: Plan) -> str:
    """Why the section on towers is empty; nothing where it is not."""
    missing = missing_towers(plan)
    return f"Not run: there are no readers {', '.join(missing)} in evaluation/readers." if missing else ""


SECTIONS: dict[str, tuple[str, tuple[str, ...], Callable[[Found], Lines]]] = {
    "reader": ("The reader on all tokens", ("full",), reader),
    "rivals": ("Policy and rivals at the same budget", ("full", "methods", "policy"), rivals),
    "state": ("What dX, x and position are worth", ("state",), state),
    "question": ("A policy that sees the question", ("state", "question"), question),
    "curriculum": ("The curriculum", ("curriculum",), curriculum),
    "advantages": ("Advantage strategies, with a count that the policy chooses", ("advantages",), advantages),
    "adaptive": ("A count for each video", ("adaptive",), adaptive),
    "rot": ("Context rot", ("rot",), rot),
    "fidelity": ("Training without labels", ("fidelity",), fidelity),
    "relative": ("Towers never seen", ("full", "relative"), relative),
}
"""By name: the heading, the experiments that it needs, and what writes it."""
