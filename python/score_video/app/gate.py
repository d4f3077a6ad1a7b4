"""A choice before the vision tower: one for a page, behind which all of its rules stand."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from score_video.before_tower import Gate
from score_video.commands.options import PRETRAINED_NAME, Chosen, gate_of_option
from score_video.compressor import PRETRAINED, AdaptiveRetention, Compressor
from score_video.errors import ScoreError, ScoreWarning
from score_video.methods import RandomMethod

LEAST_RETENTION = 0.01
"""Where the page's slider begins."""


@dataclass(frozen=True)
class PageGate:
    """What chooses before the tower of a page.

    Attributes:
        chosen: chooses; under the name that ``--before-tower`` has for it.
        halo: how many rings of neighbours the tower sees besides.
        retention: how much it lets through, so that no rule can keep more.
    """

    chosen: Chosen
    halo: int
    retention: float

    @property
    def compressor(self) -> Compressor:
        """One that stands behind it, and looks at nothing."""
        return Compressor("uniform", self.retention, before_tower=self.chosen.compressor, halo=self.halo)

    @property
    def gate(self) -> Gate:
        """What a tower is run with."""
        gate = self.compressor.gate
        assert gate is not None
        return gate

    @property
    def options(self) -> list[str]:
        """The same on a command line."""
        return ["--before-tower", f"{self.chosen.name}:{self.retention!r}", "--halo", str(self.halo)]


def find_gate(option: str | None, halo: int | None, given: Sequence[Chosen]) -> PageGate | None:
    """What ``--before-tower`` and ``--halo`` name; without them what the given compressors have; None: nothing.

    Raises:
        ScoreError, OSError: as :func:`gate_of_option`; a halo without a gate; compressors whose gates differ, or have
            no name; or a gate that lets less through than the page's slider begins with.
    """
    before, name = gate_of_option(option), (option or "").rpartition(":")[0]
    saved = [one for one in given if one.compressor.gate is not None]
    if before is None and saved:
        before, name = _saved_gate(saved)
        halo = saved[0].compressor.halo if halo is None else halo
    retention = 1.0 if before is None else before.retention
    Compressor("uniform", retention, before_tower=before, halo=halo or 0)  # refuses what cannot be
    if before is None:
        return None
    assert not isinstance(retention, AdaptiveRetention)
    if retention < LEAST_RETENTION:
        raise ScoreError(f"--before-tower must let at least {LEAST_RETENTION} through on the page, got {retention}")
    return PageGate(Chosen(before, name), halo or 0, retention)


def _saved_gate(saved: Sequence[Chosen]) -> tuple[Compressor, str]:
    """The gate that all of these have, and what ``--before-tower`` calls it."""
    gates = [one.compressor.gate for one in saved]
    if any(gate and gates[0] and gate.identity() != gates[0].identity() for gate in gates):
        names = ", ".join(one.name for one in saved)
        raise ScoreError(
            f"--compressor: {names} choose otherwise before the tower: give --before-tower for all of them"
        )
    before = saved[0].compressor.before_tower
    assert before is not None
    if isinstance(before.method, str):
        return before, before.method
    if before.method == RandomMethod():
        return before, before.method.name
    raise ScoreError(
        f"--compressor {saved[0].name}: what it has before the tower is no rule that --before-tower could name, as "
        "what the page gives to take along has to: save it by itself, and give --before-tower FOLDER:RETENTION"
    )


def behind(chosen: Chosen, gate: PageGate) -> tuple[Chosen, str]:
    """What a compressor does behind a gate, for a tower that ran there already; and what is to be said of that, or "".

    Raises:
        ScoreError: it cannot stand there.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ScoreWarning)
        stands: dict[str, Any] = {
            "retention": gate.retention,
            "before_tower": gate.chosen.compressor,
            "halo": gate.halo,
        }
        if chosen.name == PRETRAINED_NAME:  # another one stands there, as on the command line
            gated = Compressor.from_pretrained(PRETRAINED, **stands)
        else:
            gated = replace(chosen.compressor, **stands)
    after = replace(gated, before_tower=None, halo=0)
    return Chosen(after, chosen.name), " ".join(str(one.message) for one in said)
