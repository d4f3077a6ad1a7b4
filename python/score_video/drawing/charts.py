"""The pictures of ``score demo``: accuracy against retention, and what each method keeps of a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from score_video.drawing.overlay import BACKGROUND, FAINT, GAP, OUTLINE, RULE_COLOURS, TEXT, dim_dropped, outline

CELL = 96  # pixels, each side of a frame in the picture of what is kept
NAMES = 190  # pixels, of the names beside the frames

# Of Okabe and Ito's palette, which colour-blind people can tell apart
POLICY_COLOUR, RIVAL_COLOUR, ORACLE_COLOUR, OTHER_COLOUR = "#0072B2", "#D55E00", "#009E73", "#9AA0A6"


@dataclass(frozen=True)
class Shown:
    """What a method keeps of a video.

    Attributes:
        name: the method's name.
        kept: bool [T, rows, columns].
        right, asked: questions about the video that the reader answers rightly from what is kept, of how many.
        missed: bool [T, rows, columns], patches with things of which nothing is kept, outlined in another colour; None:
            not known.
        note: a further line below the name.
    """

    name: str
    kept: Tensor
    right: int
    asked: int
    missed: Tensor | None = None
    note: str = ""


def draw_accuracy(
    path: Path,
    retentions: Sequence[float],
    means: Mapping[str, Sequence[float]],
    full: float,
    policy: str,
    split: str,
    videos: int,
) -> None:
    """Draws accuracy against retention, a line for each method: the policy, the best rival and the oracle in colour.

    Args:
        path: the PNG to write.
        retentions: ascending.
        means: for each method an accuracy at each retention, 0 to 1.
        full: accuracy on all tokens.
        policy: which of the methods is the policy.
        split, videos: what it was measured on.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rivals = [name for name in means if name not in (policy, "oracle")]
    rival = max(rivals, key=lambda name: sum(means[name]), default=None)
    colours = {policy: POLICY_COLOUR, rival: RIVAL_COLOUR, "oracle": ORACLE_COLOUR}
    figure = Figure(figsize=(9, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    x = [100 * retention for retention in retentions]
    for name, row in reversed(list(means.items())):
        axes.plot(
            x,
            [100 * mean for mean in row],
            color=colours.get(name, OTHER_COLOUR),
            linewidth=3 if name == policy else 1.8 if name in colours else 1.1,
            linestyle="--" if name == "oracle" else "-",
            marker="o",
            markersize=5 if name in colours else 3,
        )
    axes.axhline(100 * full, color="black", linewidth=1, linestyle=":")
    axes.annotate(f"all tokens {100 * full:.1f}", (x[0], 100 * full), (0, 4), textcoords="offset points", fontsize=10)
    bottom, top = axes.get_ylim()
    # names stand on the left, where the lines are furthest apart, each at its line as far as there is room
    wanted = {name: 100 * row[0] for name, row in means.items()}
    heights = spread_labels(list(wanted.values()), (top - bottom) * 0.036)
    for name, height in zip(wanted, heights, strict=True):
        axes.annotate(
            name,
            (x[0], wanted[name]),
            (x[0] * 0.9, height),
            ha="right",
            va="center",
            fontsize=10,
            color=colours.get(name, "#5F6368"),
            fontweight="bold" if name == policy else "normal",
            arrowprops={"arrowstyle": "-", "color": OTHER_COLOUR, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
        )
    axes.set_xscale("log")
    axes.set_xlim(x[0] * 0.42, x[-1] * 1.06)
    axes.set_xticks(x, [f"{value:g}%" for value in x])
    axes.minorticks_off()
    axes.set_xlabel("visual tokens kept, exactly as many in every method")
    axes.set_ylabel("questions answered rightly, %")
    axes.set_title(f"Accuracy against retention: split {split}, {videos} test videos", loc="left", fontsize=12)
    axes.grid(axis="y", color="#E8EAED", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, format="png")


def spread_labels(places: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf) -> list[float]:
    """Places for labels, in the order given: near their own, at least ``gap`` from each other, from low to high.

    Neighbours that are too near form a block around the mean of what they want; blocks that touch become one.
    """
    order = np.argsort(places, kind="stable")
    # (sum of wanted places of the first, how many)
    blocks: list[list[float]] = []
    for place in np.asarray(places, float)[order]:
        blocks.append([place, 1.0])
        while len(blocks) > 1 and _start(blocks[-2]) + blocks[-2][1] * gap > _start(blocks[-1]):
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total - count * blocks[-1][1] * gap, blocks[-1][1] + count]
    moved = [_start(block) + number * gap for block in blocks for number in range(int(block[1]))]
    steps = gap * np.arange(len(moved))
    result = np.empty(len(moved))
    result[order] = np.minimum(np.maximum(moved, low + steps), high - steps[::-1])
    return [float(place) for place in result]


def _start(block: list[float]) -> float:
    return block[0] / block[1]


def draw_kept(path: Path, pixels: Tensor, methods: Sequence[Shown], title: str) -> None:
    """Draws the frames of a video, and below them for each method the same with all that it drops dimmed.

    Args:
        path: the PNG to write.
        pixels: float32 [T, 3, S, S], 0 to 1.
        methods: rows from above.
        title: a line above it.
    """
    frames = (pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy()  # [T, S, S, 3]
    scale = max(1, CELL // frames.shape[1])
    frames = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    step = frames.shape[1] + 4
    head = 56
    width = NAMES + len(frames) * step + GAP
    sheet = Image.new("RGB", (width, head + (len(methods) + 1) * (step + 6) + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 14), title, TEXT, ImageFont.load_default(22))
    for number in range(len(methods) + 1):
        top = head + number * (step + 6)
        shown = methods[number - 1] if number else None
        name = shown.name if shown else "the video"
        colour = OUTLINE if number and name.startswith("policy") else TEXT
        draw.text((GAP, top + frames.shape[1] // 2 - 22), name, colour, ImageFont.load_default(18))
        if shown:
            said = f"{shown.right} of {shown.asked} answers right"
            draw.text((GAP, top + frames.shape[1] // 2 + 4), f"{said}\n{shown.note}", FAINT, ImageFont.load_default(13))
        for t, frame in enumerate(frames):
            picture = dim_dropped(frame, shown.kept[t].numpy()) if shown else Image.fromarray(frame)
            if shown and shown.missed is not None:
                outline(picture, shown.missed[t].numpy(), RULE_COLOURS[1])
            sheet.paste(picture, (NAMES + t * step, top))
    sheet.save(path, format="PNG")
