"""What the plugin counts, for Prometheus, on the page where vLLM has its own metrics.

Tokens are counted where they are chosen, in the engine's processes, and refusals where requests come in: for one page
to have both, processes share the folder PROMETHEUS_MULTIPROC_DIR (docs/serving.md).
"""

from __future__ import annotations

from functools import cache
from typing import Any

_NAMES = {
    "videos": ("Videos that were compressed", ()),
    "tokens_seen": ("Visual tokens of them, before", ()),
    "tokens_kept": ("Visual tokens of them that were kept", ()),
    "compress_milliseconds": ("Time that the host spent on choosing them; a GPU may go on after it", ()),
    "refused": ("Videos of requests that were refused, by reason", ("reason",)),
}


@cache
def counter(name: str) -> Any:
    """The counter ``score_video:NAME_total``, one for a process; made when first asked for."""
    from prometheus_client import Counter

    text, labels = _NAMES[name]
    return Counter(f"score_video:{name}", text, labels)


def count_video(seen: int, kept: int) -> None:
    """Counts one video."""
    counter("videos").inc()
    counter("tokens_seen").inc(seen)
    counter("tokens_kept").inc(kept)


def count_milliseconds(milliseconds: float) -> None:
    """Counts what a choice took, before the vision tower or after it."""
    counter("compress_milliseconds").inc(milliseconds)
