"""Writes docs/results.md, results-tasks.md and the figures from the results, and from nothing else."""

from __future__ import annotations

import textwrap
from pathlib import Path

from evaluation.experiments import Plan
from evaluation.figures import draw_figures
from evaluation.found import Found
from evaluation.sections import SECTIONS, tasks, without_towers
from evaluation.verdicts import verdict_lines

_NOTES = """**How to read it.** Accuracies are in % of all questions of a split, on videos of the partition test that
nothing was trained on. Every method keeps exactly the same number of tokens of each video. Policies: the mean over
seeds ({seeds} of them), with the least and the most in brackets. Others: ± the standard error over videos (the
questions of one video are not independent). Differences are paired, on the same questions, ± their standard error
over videos; of policies, of the mean over seeds. Random: the mean over as many seeds of its own. The oracle knows what
the generator put where, not how the reader combines it: a mark to look at, not a bound.

**How policies were trained.** With {settings}, all else as ScoreConfig has it; the {mixtures}, with {longer}.
Ablations and other comparisons on one split are trained on that split alone."""


def write_report(plan: Plan, results: Path, docs: Path) -> list[Path]:
    """Writes what can be written; returns the files."""
    found = Found(plan, results)
    docs.mkdir(parents=True, exist_ok=True)
    figures = draw_figures(found, docs)
    files = {"results.md": _document(found, [figure.name for figure in figures])}
    if all(map(found.has, ("full", "methods", "policy"))):
        lines = ["# Results by task", "", "Made by `make results`; do not edit. See [results.md](results.md).", ""]
        files["results-tasks.md"] = "\n".join(lines + tasks(found))
    written = []
    for name, text in files.items():
        temporary = docs / f".{name}.partial"
        temporary.write_text(text.rstrip() + "\n")
        temporary.replace(docs / name)
        written.append(docs / name)
    return written + figures


def _document(found: Found, figures: list[str]) -> str:
    made, seconds, jobs = found.made()
    lines = ["# Results on the miniature world", "", "Made by `make results`; do not edit.", ""]
    lines += [f"{line}." for line in made]
    lines += ["", f"{jobs} jobs took {seconds / 60:.0f} minutes of one core.", "", _notes(found.plan), ""]
    lines += ["## Expected and found", "", *verdict_lines(found)]
    for name, (heading, needed, write) in SECTIONS.items():
        lines += [f"## {heading}", ""]
        missing = [experiment for experiment in needed if not found.has(experiment)]
        if missing:
            reason = without_towers(found.plan) if name == "relative" else ""
            lines += [reason or found.missing(missing[-1]), ""]
        else:
            lines += [f"Run at commit {', '.join(found.commits(needed))}.", "", *write(found)]
    return "\n".join(lines)


def _notes(plan: Plan) -> str:
    recipe = plan.recipe
    settings, longer = (
        ", ".join(f"`{name}` {value}" for name, value in of.items()) for of in (recipe.settings, recipe.policy_settings)
    )
    mixtures = "; ".join(
        f"{name} on {', '.join(f'{split} ({share:.0%})' for split, share in mixture.items())}"
        for name, mixture in recipe.policies.items()
    )
    text = _NOTES.format(seeds=len(recipe.seeds), settings=settings, longer=longer, mixtures=mixtures)
    return "\n\n".join(textwrap.fill(part, 120, break_on_hyphens=False) for part in text.split("\n\n"))
