"""Training environment around a frozen video MLLM of transformers."""

from score_video.mllm.environment.environment import MAX_PIXELS, MllmEnvironment, check_options
from score_video.mllm.environment.pixels import PixelEnvironment

__all__ = ["MAX_PIXELS", "MllmEnvironment", "PixelEnvironment", "check_options"]
