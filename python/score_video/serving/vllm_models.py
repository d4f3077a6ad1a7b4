"""vLLM's models, with which tokens of a video they keep decided by a :class:`~score_video.compressor.Compressor`.

How many is vLLM's own formula, because the prompt's placeholders are counted before there is a video. Every kept token
and all text have the positions of the whole prompt, which are vLLM's own too (:mod:`.vllm_positions` says how they get
there). vLLM asks this module for classes by the names in :data:`.architectures.ARCHITECTURES`: they are made when
asked for, so that no family's module is imported for another's model.

To add a kind of prompt: a class here or beside, which overrides what vLLM calls to prune, and a line in ``_KINDS``.
"""

from __future__ import annotations

import importlib
import types
from typing import Any

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.serving import vllm_kept
from score_video.serving.architectures import ARCHITECTURES, Kind
from score_video.serving.setting import VARIABLE
from score_video.serving.vllm_base import Compressing
from score_video.serving.vllm_qwen import Run, Timed


class _Masked(Compressing):
    """vLLM puts a video's frames together itself, by a mask that it asks a function of its module for."""

    def _process_video_input(self, video_input: Any) -> Any:
        if not self._prunes:
            return super()._process_video_input(video_input)  # type: ignore[misc]
        module: Any = importlib.import_module(ARCHITECTURES[type(self).__name__].module)
        own = module.compute_retention_mask
        module.compute_retention_mask = self._mask  # of this model: there may be several in a process
        try:
            return super()._process_video_input(video_input)  # type: ignore[misc]
        finally:
            module.compute_retention_mask = own

    def _mask(
        self, video_embeds: Tensor, video_size_thw: tuple[int, int, int], spatial_merge_size: int, q: float
    ) -> Tensor:
        """bool [T * N], in the place of vLLM's function and with its arguments."""
        del q  # as the setting has it
        frames, rows, columns = video_size_thw
        index = self._kept(video_embeds, (frames, rows // spatial_merge_size, columns // spatial_merge_size))
        return torch.zeros(len(video_embeds), dtype=torch.bool, device=video_embeds.device).index_fill_(0, index, True)


class _Refused:
    """Serves videos whole; with pruning on it stops the engine, before weights are loaded."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        if vllm_config.model_config.multimodal_config.get_video_pruning_spec() is not None:
            name = type(self).__name__
            raise ScoreError(
                f"{VARIABLE} is set, but score-video does not compress videos for {name}: "
                f"{ARCHITECTURES[name].reason}. Serve it without --video-pruning-rate, or unset {VARIABLE}"
            )
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]


_KINDS: dict[Kind, type] = {"run": Run, "timed": Timed, "masked": _Masked, "refused": _Refused}


def __getattr__(name: str) -> type:
    """The class of an architecture, made once."""
    if (known := ARCHITECTURES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = getattr(importlib.import_module(known.module), known.class_name or name)
    made = types.new_class(name, (_KINDS[known.kind], base))
    made.__module__, made.__doc__ = __name__, f"{known.models}, with its tokens chosen by a compressor."
    if known.kind in ("run", "timed"):
        vllm_kept.register(made, base)
    globals()[name] = made
    return made
