"""docs/first_token.md, from the results of every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.first_token.measure import DECODE, PHASES
from bench.first_token.pixels import SEEN, WAYS
from bench.first_token.results import (
    GOAL,
    GOAL_WITH_DECODING,
    Row,
    by_operations,
    rows,
    share_of_tower,
)
from bench.first_token.setting import RETENTION, STOCK
from bench.markdown import number, table
from bench.prefill.geometry import GEOMETRIES, REAL, Geometry
from bench.prefill.report import machine_line
from bench.prefill.results import Results
from bench.times import Time
from score_video.files import output_file

INTRO = f"""# From the file to the first token

Made by `python -m bench.first_token`; do not edit.

How long it takes from a video file to the first new token, phase by phase: transformers alone, and `score ask` with
{RETENTION:.0%} of the visual tokens kept. Weights are random, because speed does not depend on them; what a choice
before the tower costs in accuracy is in [before_the_tower.md](before_the_tower.md). The batch is 1.

- **{STOCK}**: its processor, then `generate`. The frames are those that `score ask` reads, so decoding is the same.
  Before anything is timed, `score ask` with everything kept has given the same answer.
- **after the tower**: `score ask`, by the policy that came with the package that day, nothing chosen before the tower.
- **30% before it**, **10% before it**: `--before-tower evs-dithered:0.3` or `:0.1`, and `--method divprune` behind it;
  **halo 1**: the tower also sees one ring of neighbours, of which there are many to what this rule scatters.
- **decode**: the sampled frames, at the size that they have in the file. Only what is needed for these is decoded.
- **processor**: scaling to what the model takes, patches, prompt. Transformers makes floats of all patches here.
- **gate**: small pictures of the tokens, and the choice before the tower.
- **vision tower**: tower and projector; for `score ask` also the floats of the patches that it sees, and the prompt's
  positions. **compression**, **prefill**: as in [ask.md](ask.md).

Ways were measured in turn, so that other work on the machine met all of them. Times are medians in milliseconds, with
the interquartile range behind ±. Speed-ups are of medians, over {STOCK}.
"""

PIXELS = f"""
### Before the tower

What becomes of frames until the tower gets its pixels, the prompt's text with it. **{WAYS[0]}**: floats of all patches,
by its processor. **{WAYS[1]}**: the processor scales and cuts bytes, which become floats afterwards; the same
to the bit, which is checked before anything is timed ([before_the_tower.md](before_the_tower.md) has the families).
**{WAYS[2]}**: floats of {SEEN:.0%} of the tokens alone, as behind a gate. **memory**: at its highest, beyond
the frames.
"""

OPERATIONS = """
### By operations

How many times fewer floating-point operations there are to the first token, tower and prefill, if the tower sees the
share of the tokens that it saw above: two for every weight and token, attention over frames, windows and the causal
half. What comes before the tower is not counted; the faster a device runs the model, the larger its share.
"""

GPU = """
## What a GPU has still to show

No GPU has run this yet; `python -m bench.first_token` there takes Qwen2.5-VL 7B itself and adds its tables. The counts
of operations say what could be had. Against them stand what a GPU does not make faster (decoding and scaling run on the
CPU; what goes over the bus is a quarter of the floats), attention in windows of a few patches, and the time that
launching many small kernels takes. [prefill.md](prefill.md) has the tower's and the prefill's times on one, without
what comes before.
"""

LENGTHS = ((33, 12, 21), (64, 25, 25))
"""Frames, rows and columns of the tokens that operations are counted for."""


def write_document(found: Sequence[Results], docs: Path) -> Path:
    """Writes first_token.md into a folder."""
    parts = [INTRO, *(section(results) for results in found)]
    if not any("gpu" in results.run for results in found):
        parts.append(GPU)
    path = docs / "first_token.md"
    with output_file(path) as temporary:
        temporary.write_text("".join(parts))
    return path


def section(results: Results) -> str:
    """One machine's part."""
    run, measured = results.run, rows(results)
    geometry = GEOMETRIES[run["geometry"]]
    tokens = results.records[STOCK]["tokens"]
    height, width = run["size"]
    clip = run["video"] or f"{run['seconds']} s of {width}x{height} at 25 frames a second, drawn and encoded as H.264"
    repeats = f"{run['repeats']} repeat{'s' * (run['repeats'] > 1)}"
    how = f"{run['dtype']}, {repeats}, each after a small clip"
    lines = [
        f"\n## {run.get('gpu', 'CPU: ' + run['cpu'])}\n",
        machine_line(run, results.records[DECODE]["loads"], how),
        f"\n{geometry.name} ({geometry.source}; {share_of_tower(geometry, _shape(results), _text(results)):.0%} of the "
        f"operations are the tower's, {share_of_tower(REAL[0], _shape(results), _text(results)):.0%} in 7B itself). "
        f"{clip}; {run['frames']} frames, {tokens:,} visual tokens.\n",
        *_phases(measured, tokens),
        "",
        *_goals(measured),
        PIXELS,
        *_pixels(results),
        OPERATIONS,
        *_operations(results, measured),
    ]
    return "\n".join(lines) + "\n"


def _phases(measured: Sequence[Row], tokens: int) -> list[str]:
    head = ("", "tokens in the tower", "in the prompt", *PHASES, "first token", "speed-up", "without decoding")
    lines = [
        (
            row.name, f"{row.encoded:,} ({row.encoded / tokens:.0%})", f"{row.kept:,}",
            *(_time(row.phases.get(phase)) for phase in PHASES), row.first_token.told(),
            *(("", "") if row.name == STOCK else (f"{row.speed_up_with_decoding:.1f}x", f"{row.speed_up:.1f}x")),
        )
        for row in measured
    ]  # fmt: skip
    return table(head, lines, range(1, len(head)))


def _goals(measured: Sequence[Row]) -> Iterator[str]:
    """Which ways are as fast as was aimed at."""
    for goal, what, gains in (
        (GOAL, "decoding left out", [row.speed_up for row in measured]),
        (GOAL_WITH_DECODING, "decoding counted in", [row.speed_up_with_decoding for row in measured]),
    ):
        named = [(row.name, gain) for row, gain in zip(measured, gains, strict=True) if row.name != STOCK]
        reached = [f"{name} ({gain:.1f}x)" for name, gain in named if gain >= goal]
        missed = [f"{name} ({gain:.1f}x)" for name, gain in named if gain < goal]
        said = [f"reached by {', '.join(reached)}"] * bool(reached) + [f"not by {', '.join(missed)}"] * bool(missed)
        yield f"- Goal: {goal:g}x, {what}: {'; '.join(said)}."


def _pixels(results: Results) -> list[str]:
    head = ("frames", "tokens", "floats, MB", "decode, ms", *(f"{way}, ms" for way in WAYS),
            *(f"memory, {way}, MB" for way in WAYS))  # fmt: skip
    lines = []
    for key, record in results.records.items():
        if key.startswith("pixels/"):
            ways = [record["ways"][way] for way in WAYS]
            lines.append(
                (
                    f"{record['frames']}", f"{record['tokens']:,}", number(record["values"] * 4 / 1e6),
                    number(record["decode"]), *(Time.of(way["seconds"]).told(1e3) for way in ways),
                    *(number(way["extra_bytes"] / 1e6) for way in ways),
                )
            )  # fmt: skip
    return table(head, lines)


def _operations(results: Results, measured: Sequence[Row]) -> list[str]:
    geometry, text = GEOMETRIES[results.run["geometry"]], _text(results)
    tokens = results.records[STOCK]["tokens"]
    cases: list[tuple[Geometry, tuple[int, int, int]]] = [
        (geometry, _shape(results)),
        *((REAL[0], shape) for shape in LENGTHS),
    ]
    head = ("model", "visual tokens", "tower's share", *(row.name for row in measured[1:]))
    lines = [
        (
            of.name, f"{shape[0] * shape[1] * shape[2]:,}", f"{share_of_tower(of, shape, text):.0%}",
            *(f"{by_operations(of, shape, text, row.encoded / tokens):.1f}x" for row in measured[1:]),
        )
        for of, shape in dict.fromkeys(cases)
    ]  # fmt: skip
    return table(head, lines, range(1, len(head)))


def _shape(results: Results) -> tuple[int, int, int]:
    """Frames, rows and columns of the tokens; what is counted knows only how many there are in a frame."""
    frames = -(-results.run["frames"] // 2)
    return frames, 1, results.records[STOCK]["tokens"] // frames


def _text(results: Results) -> int:
    """Tokens of the prompt beside the visual ones."""
    record = results.records[STOCK]
    text: int = record["prompt"] - record["tokens"]
    return text


def _time(time: Time | None) -> str:
    return "" if time is None else time.told()
