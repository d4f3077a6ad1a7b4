"""The one setting of the engines' plugins: an environment variable that names what decides.

Imports torch and transformers only to load a compressor: every process of an engine asks whether the variable is set.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from score_video.compressor import Compressor

VARIABLE = "SCORE_VIDEO_COMPRESSOR"
"""The environment variable. Empty or not set: the plugin does nothing."""

ENGINE_ITSELF = "vllm"
"""The value that leaves the choice to vLLM's own methods, and only mends what keeps them from running on CPUs."""


def read_setting() -> str:
    """The variable's value; "" where it is not set."""
    return os.environ.get(VARIABLE, "")


def engine_compressor(setting: str) -> Compressor:
    """What decides which tokens of a video stay. How many is the engine's business: ``retention`` has no say.

    Args:
        setting: anything that :meth:`score_video.Compressor.from_pretrained` takes.

    Raises:
        ScoreError: there is no such thing, it is damaged, or no engine can use it: its count is adaptive, but engines
            fix counts before they see the video; its policy asks for the question, but they cache a video's tokens
            for all questions; or it keeps first frames before the vision tower, which a short clip has too few
            tokens for. Names the variable.
    """
    from score_video.before_tower import WHOLE_FIRST_FRAME
    from score_video.compressor import PRETRAINED, AdaptiveRetention, Compressor
    from score_video.errors import ScoreError
    from score_video.methods import METHODS
    from score_video.policy import SurprisePolicy

    try:
        compressor = Compressor.from_pretrained(setting)
    except (OSError, ValueError) as error:
        raise ScoreError(
            f"{VARIABLE} must be a folder or a hub id of a saved compressor or policy, or one of "
            f"{', '.join((PRETRAINED, *METHODS))}, got {setting!r}: {error}"
        ) from error
    if isinstance(compressor.retention, AdaptiveRetention):
        raise ScoreError(
            f"{VARIABLE}: the retention of {setting!r} is adaptive, but the engine fixes the count of a video's tokens "
            "before it sees the video: save the compressor with a fraction"
        )
    if isinstance(compressor.method, SurprisePolicy) and compressor.method.config.question_width:
        raise ScoreError(
            f"{VARIABLE}: the policy of {setting!r} needs the question, but the engine caches the tokens of a video "
            "for all questions about it"
        )
    gate = compressor.before_tower
    if gate is not None and gate.method in WHOLE_FIRST_FRAME:
        raise ScoreError(
            f"{VARIABLE}: before_tower of {setting!r} must not be {gate.method!r}, which keeps the whole first frame "
            "before anything else and needs two frames' worth: a request with a short clip has less. Take "
            "'evs-dithered' or 'uniform'"
        )
    return compressor
