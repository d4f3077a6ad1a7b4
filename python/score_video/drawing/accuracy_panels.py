"""The picture of ``score bench``: accuracy against retention, a panel for each model and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Panel:
    """One of the picture's panels.

    Attributes:
        title: a line above it.
        full: accuracy on all tokens, 0 to 1; None: it is not known.
        lines: for each compressor its points (retention, accuracy, standard error or None), 0 to 1, in any order.
    """

    title: str
    full: float | None
    lines: Mapping[str, Sequence[tuple[float, float, float | None]]]


def draw_accuracy_panels(path: Path, panels: Sequence[Panel]) -> None:
    """Writes a PNG, at most three panels in a row; a compressor has one colour and marker in all of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns + 1.8, 4.2 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    drawn = {}
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        for name, points in panel.lines.items():
            x, y, error = zip(*sorted(points), strict=True)
            style = names.index(name)
            drawn[name] = axes.errorbar(
                [100 * value for value in x],
                [100 * value for value in y],
                [100 * (value or 0.0) for value in error],
                color=f"C{style % 10}",
                marker="osD^v<>PX*"[style % 10],
                markersize=4,
                linewidth=1.2,
                elinewidth=0.6,
                capsize=2,
            )
        if panel.full is not None:
            axes.axhline(100 * panel.full, color="black", linewidth=1, linestyle=":")
        ticks = sorted({100 * point[0] for points in panel.lines.values() for point in points})
        axes.set_xscale("log")
        if len(ticks) <= 8:
            axes.set_xticks(ticks, [f"{value:.3g}%" for value in ticks])
            axes.minorticks_off()
        axes.set_xlabel("visual tokens kept")
        axes.set_ylabel("questions answered rightly, %")
        axes.set_title(panel.title, loc="left", fontsize=10)
        axes.grid(axis="y", color="#E8EAED", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.legend(
        handles=list(drawn.values()), labels=list(drawn), loc="outside right upper", fontsize=9, frameon=False
    )
    figure.savefig(path, format="png")
