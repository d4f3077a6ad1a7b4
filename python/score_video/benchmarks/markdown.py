"""A comparison's report as text: tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_video.benchmarks.report import PHASES
from score_video.statistics import Needed

_HEADS = ("model", "task", "compressor", "kept", "tokens", "accuracy", "to all tokens", "of full", *PHASES)


def markdown(report: Mapping[str, Any]) -> str:
    """The rows, accuracies in %, times in ms (medians of samples); the retentions that are needed; the means over the
    tasks, beside published figures where there are any; errors and versions."""
    parts = [_table(_HEADS, [_row(row) for row in report["rows"]])]
    if report["needed"]:
        needed = [
            (
                *(Path(one["model"]).name, one["task"], one["compressor"]),
                str(Needed(one["value"], one["low"], one["high"], one["least"])),
            )
            for one in report["needed"]
        ]
        parts.append(_table(("model", "task", "compressor", "needed for 99% of full"), needed))
    if len(report["averaged"]) > 1 or report["published"]:
        parts += _means(report)
    parts += [f"Failed: {error['error']}" for error in report["errors"]]
    return "\n\n".join([*parts, f"Versions: {report['versions']}", ""])


def _row(row: Mapping[str, Any]) -> list[str]:
    cells = [Path(row["model"]).name, row["task"], *_compressor_and_retention(row), _number(row["kept"], ".0f")]
    cells.append(_with_error(row["accuracy"], row["accuracy_error"], ".1f"))
    cells.append(_with_error(row["difference"], row["difference_error"], "+.1f"))
    cells.append(_number(row["share_of_full"], ".1f", 100))
    return cells + [_number(row["milliseconds"].get(phase), ".1f") for phase in PHASES]


def _means(report: Mapping[str, Any]) -> list[str]:
    """The means over the tasks of each run, and a table of ours and published shares at equal retentions."""
    rows = [
        (Path(mean["model"]).name, *_compressor_and_retention(mean), _number(mean["accuracy"], ".1f", 100),
         _number(mean["share_of_full"], ".1f", 100))
        for mean in report["means"]
    ]  # fmt: skip
    parts = [
        f"Means over {', '.join(report['averaged'])}:",
        _table(("model", "compressor", "kept", "accuracy", "of full"), rows),
    ]
    if (published := report["published"]) is None:
        return parts
    retentions = published["retentions"]
    theirs = [
        [f"{name} (published)", *(_number(share, ".1f") for share in shares)]
        for name, shares in published["share_of_full"].items()
    ]
    ours = []
    for name in dict.fromkeys(mean["compressor"] for mean in report["means"] if mean["retention"] is not None):
        at = {mean["retention"]: mean["share_of_full"] for mean in report["means"] if mean["compressor"] == name}
        ours.append([name, *(_number(at.get(retention), ".1f", 100) for retention in retentions)])
    full = ", ".join(f"{task} {accuracy}" for task, accuracy in published["full"].items())
    note = (
        f"Published figures: {published['source']}; accuracy on all tokens there: {full}. The shares are of the mean "
        f"over {', '.join(published['tasks'])}; in ours each question of a task counts once, where lmms-eval's own "
        "metric for MLVU is a mean over kinds of questions."
    )
    heads = ["% of the accuracy on all tokens", *(f"{100 * retention:g}%" for retention in retentions)]
    return [*parts, _table(heads, [*ours, *theirs]), note]


def _compressor_and_retention(row: Mapping[str, Any]) -> tuple[str, str]:
    whole = row["retention"] is None
    return ("all tokens", "all") if whole else (row["compressor"], f"{100 * row['retention']:g}%")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _with_error(share: float | None, error: float | None, form: str) -> str:
    return _number(share, form, 100) + ("" if error is None else f" ± {100 * error:.1f}")


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "" if value is None else f"{scale * value:{form}}"
