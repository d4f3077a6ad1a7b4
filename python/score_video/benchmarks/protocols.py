"""Comparisons as papers publish them: a model, its frames, the tasks and the retentions; and what others report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from score_video.errors import ScoreError

RETENTIONS = (0.25, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01)
COMPRESSORS = ("pretrained", "fewer-frames", "random", "uniform", "evs", "vidcom2", "divprune")
"""And "resize", where the number of tokens of a frame goes by its size."""

LONG_VIDEO = ("longvideobench_val_v", "mlvu_dev", "mlvu_test", "videomme")
"""The tasks over which the published table has its mean."""
TASKS = (*LONG_VIDEO, "mvbench", "egoschema_subset")
"""lmms-eval's names. EgoSchema: the 500 questions whose answers are public."""

QUESTIONS: Mapping[str, int] = {
    "longvideobench_val_v": 1337,
    "mlvu_dev": 2174,
    "mlvu_test": 502,
    "videomme": 2700,
    "mvbench": 4000,
    "egoschema_subset": 500,
}
"""How many each task asks, as its authors publish it: for estimates."""


@dataclass(frozen=True)
class Published:
    """Figures that others report for a protocol.

    Attributes:
        source: the publication that they stand in.
        tasks: names of the tasks that they are a mean over.
        full: accuracy on all tokens by task, %.
        retentions: fractions kept, one for each number of ``share_of_full``.
        share_of_full: by method, % of the accuracy on all tokens at each retention; None where none is given.
    """

    source: str
    tasks: tuple[str, ...]
    full: Mapping[str, float]
    retentions: tuple[float, ...]
    share_of_full: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Protocol:
    """What ``--protocol`` stands for; flags replace any of it.

    Attributes:
        model: its id on the hub.
        frames: how many of each video, evenly spread.
        resizable: whether the number of tokens of a frame goes by its size.
    """

    model: str
    frames: int
    resizable: bool = True
    published: Published | None = None
    tasks: tuple[str, ...] = TASKS
    retentions: tuple[float, ...] = RETENTIONS

    @property
    def compressors(self) -> tuple[str, ...]:
        """All that are compared."""
        return (*COMPRESSORS[:1], "resize", *COMPRESSORS[1:]) if self.resizable else COMPRESSORS


_SOURCE = "CaCoVID, arXiv 2602.01649, its table at equal ratios (lmms-eval, 32 frames)"
_RATIOS = (0.25, 0.2, 0.15, 0.1)

_LLAVA = Published(
    _SOURCE,
    LONG_VIDEO,
    dict(zip(LONG_VIDEO, (56.4, 63.0, 47.7, 58.6), strict=True)),
    _RATIOS,
    {
        "FastV": (92.7, 91.8, 88.3, 81.6),
        "VisionZip": (96.8, 97.2, 94.3, 88.8),
        "DivPrune": (97.5, 96.9, 96.3, 94.5),
        "PruneVid": (97.7, 96.9, 95.5, 93.8),
        "FrameFusion": (96.7, 95.8, 92.3, 87.2),
        "CaCoVID": (98.9, 98.1, 97.5, 96.1),
    },
)
_QWEN = Published(
    _SOURCE,
    LONG_VIDEO,
    dict(zip(LONG_VIDEO, (54.3, 62.1, 45.6, 60.4), strict=True)),
    _RATIOS,
    {
        "FastV": (92.7, 90.1, 86.7, 79.9),
        "VisionZip": (95.1, 94.2, 94.3, 92.3),
        "DivPrune": (97.0, 95.5, 92.9, 90.9),
        "PruneVid": (94.6, 93.8, 92.5, 90.2),
        "FrameFusion": (96.5, 94.1, 91.6, None),
        "CaCoVID": (97.5, 96.9, 94.4, 93.4),
    },
)

PROTOCOLS: Mapping[str, Protocol] = {
    "llava-onevision-7b-32": Protocol("llava-hf/llava-onevision-qwen2-7b-ov-hf", 32, False, _LLAVA),
    "qwen2.5-vl-3b-32": Protocol("Qwen/Qwen2.5-VL-3B-Instruct", 32, published=_QWEN),
    "qwen2.5-vl-3b-64": Protocol("Qwen/Qwen2.5-VL-3B-Instruct", 64),
    "qwen2.5-vl-7b-32": Protocol("Qwen/Qwen2.5-VL-7B-Instruct", 32),
    "qwen2.5-vl-7b-64": Protocol("Qwen/Qwen2.5-VL-7B-Instruct", 64),
    "qwen3-vl-8b-32": Protocol("Qwen/Qwen3-VL-8B-Instruct", 32),
    "qwen3-vl-8b-64": Protocol("Qwen/Qwen3-VL-8B-Instruct", 64),
}


def find_protocol(name: str) -> Protocol:
    """Raises ScoreError: there is none of that name."""
    if name not in PROTOCOLS:
        raise ScoreError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]
