"""What follows from the records: speed-ups, shares, and whether the targets are met."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.prefill.baselines import BASELINES
from bench.prefill.geometry import Geometry, prefill_flops
from bench.prefill.measure import COMPILED, METHODS, POLICY, SYSTEMATIC, Job, Record
from bench.prefill.results import Results
from bench.times import Time

TARGET_GEOMETRY, TARGET_TOKENS, TARGET_RETENTION = "Qwen2.5-VL 7B", 40_000, 0.1
TARGET_SPEED_UP, TARGET_SHARE = 16.0, 0.01
EVS = BASELINES[0].name
EVS_TOKENS, EVS_RATIO = 8192, 1.5  # at the shortest prompt that is no shorter


@dataclass(frozen=True)
class Row:
    """A prompt before its first token. Times in seconds; None: not measured, or out of memory.

    Attributes:
        geometry, tokens, retention: of which prompt.
        kept, prompt: how many of its visual tokens are left, and tokens in all.
        full_prompt: tokens of the same prompt uncompressed.
        vision, positions: the same with and without compression.
        compress: by each method, the better of eager and compiled; empty where all is kept.
        select: the part of the policy's that chooses; the rest of it rewrites the prompt.
        prefill, full: of this prompt, of all tokens.
        peak_bytes: of the prefill.
    """

    geometry: Geometry
    tokens: int
    retention: float
    kept: int | None
    prompt: int | None
    full_prompt: int | None
    vision: Time | None
    positions: Time | None
    compress: dict[str, Time]
    select: Time | None
    prefill: Time | None
    full: Time | None
    peak_bytes: int | None

    def speed_up(self, method: str = POLICY) -> float | None:
        """Of the prefill, the method's own time counted in."""
        if self.full is None or self.prefill is None or (own := self._own(method)) is None:
            return None
        return self.full.median / (own + self.prefill.median)

    @property
    def predicted(self) -> float | None:
        """The ratio of floating-point operations."""
        if self.prompt is None or self.full_prompt is None:
            return None
        return prefill_flops(self.geometry, self.full_prompt) / prefill_flops(self.geometry, self.prompt)

    @property
    def share(self) -> float | None:
        """The policy's time over the compressed prefill's."""
        if self.prefill is None or POLICY not in self.compress:
            return None
        return self.compress[POLICY].median / self.prefill.median

    @property
    def first_token(self) -> float | None:
        """Seconds of all phases together."""
        if self.vision is None or self.positions is None or self.prefill is None or (own := self._own(POLICY)) is None:
            return None
        return self.vision.median + self.positions.median + own + self.prefill.median

    @property
    def first_token_speed_up(self) -> float | None:
        """Of all phases together."""
        if (own := self.first_token) is None or self.full is None or self.prefill is None:
            return None
        compression = self._own(POLICY) or 0.0
        return (own - compression - self.prefill.median + self.full.median) / own

    def _own(self, method: str) -> float | None:
        if self.retention == 1:
            return 0.0
        return self.compress[method].median if method in self.compress else None


def rows(results: Results, geometry: Geometry) -> Iterator[Row]:
    """By length, from the shortest; all tokens first, then fewer and fewer."""
    for tokens in sorted(geometry.lengths):
        full = _record(results, Job(geometry, tokens, "prefill", 1.0))
        for retention in sorted(results.run["retentions"], reverse=True):
            prefill = _record(results, Job(geometry, tokens, "prefill", retention))
            yield Row(
                geometry,
                tokens,
                retention,
                prefill.get("kept"),
                prefill.get("prompt"),
                full.get("prompt"),
                _time(_record(results, Job(geometry, tokens, "vision"))),
                _time(_record(results, Job(geometry, tokens, "positions"))),
                {} if retention == 1 else _compress(results, geometry, tokens, retention),
                _time(_record(results, Job(geometry, tokens, "select", retention, POLICY))),
                _time(prefill),
                _time(full),
                prefill.get("peak_bytes"),
            )


def targets(results: Results, geometry: Geometry) -> list[tuple[str, str, bool]]:
    """What is aimed at, what was measured, whether that is reached; empty for a geometry that no target is of."""
    return [*_prefill_targets(results, geometry), *_evs_targets(results, geometry)]


def _prefill_targets(results: Results, geometry: Geometry) -> list[tuple[str, str, bool]]:
    if geometry.name != TARGET_GEOMETRY:
        return []
    row = next(
        row for row in rows(results, geometry) if (row.tokens, row.retention) == (TARGET_TOKENS, TARGET_RETENTION)
    )
    gain, share = row.speed_up(), row.share
    at = f"{geometry.name}, {TARGET_TOKENS:,} tokens, {TARGET_RETENTION:.0%} kept"
    return [
        (
            f"{at}: prefill at least {TARGET_SPEED_UP:.0f}x faster, the compressor counted in",
            "not measured" if gain is None else f"{gain:.1f}x",
            gain is not None and gain >= TARGET_SPEED_UP,
        ),
        (
            f"{at}: the compressor takes less than {TARGET_SHARE:.0%} of the compressed prefill",
            "not measured" if share is None else f"{share:.2%}",
            share is not None and share < TARGET_SHARE,
        ),
    ]


def _evs_targets(results: Results, geometry: Geometry) -> Iterator[tuple[str, str, bool]]:
    """The policy beside EVS in plain torch, eager: all with the rewriting of the prompt."""
    tokens = min((length for length in geometry.lengths if length >= EVS_TOKENS), default=None)
    if tokens is None:
        return
    evs, *policies = (
        _time(_record(results, Job(geometry, tokens, "compress", TARGET_RETENTION, method)))
        for method in (EVS, POLICY, SYSTEMATIC)
    )
    at = f"{geometry.name}, {tokens:,} tokens, {TARGET_RETENTION:.0%} kept"
    for method, policy in zip((POLICY, SYSTEMATIC), policies, strict=True):
        if method == SYSTEMATIC and policy is None:  # where it was the default
            continue
        ratio = policy.median / evs.median if policy is not None and evs is not None else None
        yield (
            f"{at}: {method}: at most {EVS_RATIO} times as long as EVS in eager torch",
            "not measured" if ratio is None else f"{ratio:.2f}x",
            ratio is not None and ratio <= EVS_RATIO,
        )


def _record(results: Results, job: Job) -> Record:
    return results.records.get(job.key, {})


def _time(record: Record) -> Time | None:
    return Time.of(record["seconds"]) if "seconds" in record else None


def _compress(results: Results, geometry: Geometry, tokens: int, retention: float) -> dict[str, Time]:
    found = {}
    for method in METHODS:
        variants = [
            _time(_record(results, Job(geometry, tokens, "compress", retention, method + tail)))
            for tail in ("", COMPILED)
        ]
        if times := [time for time in variants if time is not None]:
            found[method] = min(times, key=lambda time: time.median)
    return found
