"""What follows from the records: medians, spreads, speed-ups, and what the operations would give."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.first_token.flops import tower_flops
from bench.first_token.measure import DECODE, PHASES, Measured
from bench.first_token.setting import RETENTION, STOCK
from bench.prefill.geometry import Geometry, prefill_flops
from bench.prefill.results import Results
from bench.times import Time
from score_ext.budget import keep_count

GOAL, GOAL_WITH_DECODING = 5.0, 3.0
"""Times as fast as transformers to the first token, at 8,192 tokens and a tenth of them kept."""


@dataclass(frozen=True)
class Row:
    """A way to the first token. Times in milliseconds.

    Attributes:
        name: the way's.
        encoded, kept, prompt: tokens of the video in the tower and in the prompt, and those of the whole prompt.
        phases: by name; a way has not all of them.
        first_token: of all phases together, decoding among them.
        speed_up, speed_up_with_decoding: of the medians, without decoding on both sides and with it.
    """

    name: str
    encoded: int
    kept: int
    prompt: int
    phases: dict[str, Time]
    first_token: Time
    speed_up: float
    speed_up_with_decoding: float


def record_of(runs: Sequence[Measured]) -> dict[str, Any]:
    """Several runs of one way, as JSON can hold them."""
    last = runs[-1]
    times = {phase: [run.milliseconds[phase] for run in runs] for phase in PHASES if phase in last.milliseconds}
    return {
        "milliseconds": times,
        "tokens": last.tokens,
        "encoded": last.encoded,
        "kept": last.kept,
        "prompt": last.prompt,
    }


def rows(results: Results) -> list[Row]:
    """The ways in the order in which they were measured, transformers first."""
    decode = results.records[DECODE]["milliseconds"]
    ways = {name: record for name, record in results.records.items() if "encoded" in record}
    sums = {
        name: [sum(times) for times in zip(*record["milliseconds"].values(), strict=True)]
        for name, record in ways.items()
    }
    found = []
    for name, record in ways.items():
        whole = [own + decoding for own, decoding in zip(sums[name], decode, strict=True)]
        stock, shared = statistics.median(sums[STOCK]), statistics.median(decode)
        mine = statistics.median(sums[name])
        phases = {DECODE: decode} | record["milliseconds"]
        found.append(
            Row(
                name,
                record["encoded"],
                record["kept"],
                record["prompt"],
                {phase: Time.of(times) for phase, times in phases.items()},
                Time.of(whole),
                stock / mine,
                (stock + shared) / (mine + shared),
            )
        )
    return found


def by_operations(geometry: Geometry, shape: tuple[int, int, int], text: int, share: float) -> float:
    """How many times fewer operations there are to the first token, tower and prefill, at :data:`RETENTION`.

    Args:
        geometry: of a Qwen2.5-VL.
        shape: frames, rows and columns of the video's tokens.
        text: tokens of the prompt beside them.
        share: of them that the tower sees.
    """
    frames, height, width = shape
    tokens = frames * height * width
    kept = keep_count(frames, height * width, RETENTION)
    whole = tower_flops(geometry, shape) + prefill_flops(geometry, tokens + text)
    return whole / (tower_flops(geometry, shape, share) + prefill_flops(geometry, kept + text))


def share_of_tower(geometry: Geometry, shape: tuple[int, int, int], text: int) -> float:
    """Of the operations to the first token of the stock model."""
    tower = tower_flops(geometry, shape)
    return tower / (tower + prefill_flops(geometry, shape[0] * shape[1] * shape[2] + text))
