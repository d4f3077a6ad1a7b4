"""The figure of one machine: speed-ups against the prediction, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.prefill.findings import Row, rows
from bench.prefill.geometry import Geometry
from bench.prefill.measure import POLICY
from bench.prefill.results import Results

# Okabe and Ito's colours, told apart by colour-blind people too
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7")
_STYLE: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def draw(results: Results, geometries: Sequence[Geometry], file: Path) -> None:
    """Writes a PNG: a column for each geometry."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(max(3.1 * len(geometries), 5.0), 5.2), layout="constrained")
        panels = np.asarray(figure.subplots(2, len(geometries), squeeze=False))
        for column, geometry in enumerate(geometries):
            found = list(rows(results, geometry))
            _speed_ups(panels[0, column], geometry, found)
            _phases(panels[1, column], found)
        panels[0, 0].set_ylabel("prefill, times faster")
        panels[1, 0].set_ylabel("to the first token, ms")
        panels[0, 0].legend(frameon=False)
        panels[1, -1].legend(frameon=False)
        figure.savefig(file, format="png", dpi=130)


def _speed_ups(axes: Axes, geometry: Geometry, found: list[Row]) -> None:
    """Measured, the compressor counted in, and dashed what the FLOPs predict."""
    for retention, colour in zip(sorted({row.retention for row in found if row.retention < 1}), _COLOURS, strict=False):
        line = [row for row in found if row.retention == retention]
        label = f"{retention:.0%} kept"
        axes.plot(*_points(line, [row.speed_up() for row in line]), "o-", color=colour, ms=4, label=label)
        axes.plot(*_points(line, [row.predicted for row in line]), "--", color=colour, lw=1)
    axes.set_title(geometry.name)
    axes.set_xscale("log", base=2)
    lengths = sorted(geometry.lengths)
    axes.set_xticks(lengths, [f"{round(length / 1000)}k" for length in lengths])
    axes.set_xlabel("visual tokens (dashed: by FLOPs)")
    axes.set_ylim(bottom=0)


def _points(line: list[Row], values: list[float | None]) -> tuple[list[int], list[float]]:
    pairs = [(row.tokens, value) for row, value in zip(line, values, strict=True) if value is not None]
    return [tokens for tokens, _ in pairs], [value for _, value in pairs]


def _phases(axes: Axes, found: list[Row]) -> None:
    """At the greatest length that was measured whole: a bar for each retention, a colour for each phase."""
    whole = [row.tokens for row in found if row.retention == 1 and row.prefill is not None]
    if not whole:
        axes.set_axis_off()
        return
    bars = [row for row in found if row.tokens == max(whole)]
    bottom = np.zeros(len(bars))
    for phase, colour in zip(("vision", "compress", "prefill"), _COLOURS, strict=False):
        times = [row.compress.get(POLICY) if phase == "compress" else getattr(row, phase) for row in bars]
        heights = np.array([0.0 if time is None else 1e3 * time.median for time in times])
        axes.bar(
            [f"{row.retention:.0%}" for row in bars], heights, bottom=bottom, color=colour, label=phase, width=0.65
        )
        bottom += heights
    axes.set_xlabel(f"kept of {max(whole):,} visual tokens")
