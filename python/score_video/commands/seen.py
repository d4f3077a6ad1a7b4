"""What a command reports of a choice before the vision tower."""

from __future__ import annotations

from typing import Any

from score_video.before_tower import Seen
from score_video.compressor import Compressor


def before_tower_named(compressor: Compressor) -> dict[str, Any] | None:
    """``method`` and ``retention`` of what chooses before the tower, and ``halo``; None where nothing does."""
    before, gate = compressor.before_tower, compressor.gate
    if before is None or gate is None:
        return None
    return {"method": gate.name, "retention": before.plain_retention, "halo": gate.halo}


def before_tower_report(compressor: Compressor, seen: Seen | None) -> dict[str, Any] | None:
    """For JSON; None where nothing was chosen before the tower.

    As :func:`before_tower_named`, and how many tokens the tower saw: ``kept`` and, with those, a halo's (``encoded``).
    """
    named = before_tower_named(compressor)
    if named is None or seen is None:
        return None
    return {**named, "kept": len(seen.kept.index), "encoded": len(seen.encoded)}
