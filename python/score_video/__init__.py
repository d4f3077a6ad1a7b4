"""Keep the visual tokens of a video that matter, before the language model sees them (SCORE, unofficial).

What is named here is loaded when it is first used, so that ``import score_video`` itself costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from score_video.compressor import AdaptiveRetention, Compressor
    from score_video.errors import ScoreError
    from score_video.methods import METHODS
    from score_video.mllm import compress_inputs, encode_inputs, supported_models
    from score_video.packed import PackedVideos, Selection, Selector
    from score_video.policy import SurprisePolicy, SurprisePolicyConfig, pretrained_policy
    from score_video.video import VideoError, read_frames

    __version__: str

__all__ = [
    "METHODS",
    "AdaptiveRetention",
    "Compressor",
    "PackedVideos",
    "ScoreError",
    "Selection",
    "Selector",
    "SurprisePolicy",
    "SurprisePolicyConfig",
    "VideoError",
    "__version__",
    "compress_inputs",
    "encode_inputs",
    "pretrained_policy",
    "read_frames",
    "supported_models",
]

_MODULES = {
    "compressor": ("AdaptiveRetention", "Compressor"),
    "errors": ("ScoreError",),
    "methods": ("METHODS",),
    "mllm": ("compress_inputs", "encode_inputs", "supported_models"),
    "packed": ("PackedVideos", "Selection", "Selector"),
    "policy": ("SurprisePolicy", "SurprisePolicyConfig", "pretrained_policy"),
    "video": ("VideoError", "read_frames"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("score-video")
    if name in _MODULE_OF:
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
