"""``score bench``: compressors beside each other on benchmarks, through lmms-eval."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_video.benchmarks.compare import compare
from score_video.benchmarks.config import Comparison, comparison, read_config
from score_video.benchmarks.cost import estimate
from score_video.benchmarks.markdown import markdown
from score_video.commands.evaluate import parse_numbers


def choose(config: Path | None, options: Mapping[str, Any]) -> Comparison:
    """What a file and the command's options name; options go before the file.

    Args:
        config: YAML, or None.
        options: values by the names of :data:`score_video.benchmarks.config.KEYS`; None, or an empty list: not given.

    Raises:
        ScoreError, FileNotFoundError: as :mod:`score_video.benchmarks.config`.
    """
    given = {name: value for name, value in options.items() if value not in (None, [])}
    if "retention" in given:
        given["retention"] = parse_numbers(given["retention"])
    return comparison({**({} if config is None else read_config(config)), **given})


def dry_run(chosen: Comparison, output: Path, teraflops: float) -> str:
    """What is downloaded, how long it takes, and the commands, a line each."""
    commands = [shlex.join(run.command(chosen.settings, run.folder(chosen.settings, output))) for run in chosen.runs]
    return "\n".join([estimate(chosen, teraflops), "Commands:", *commands])


def run(chosen: Comparison, output: Path) -> dict[str, Any]:
    """Runs it, prints the tables, and gives the report. Raises as :func:`score_video.benchmarks.compare.compare`."""
    report = compare(
        chosen.runs,
        chosen.settings,
        output,
        lambda line: print(line, file=sys.stderr, flush=True),
        chosen.protocol,
    )
    print(markdown(report), end="")
    return report
