"""What every model of the plugin has: a compressor, vLLM's formula of counts, and the choice of a video's tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.logger import init_logger
from vllm.multimodal.video_prune import evs, vidcom2
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

import score_ext
from score_video.before_tower import Seen
from score_video.compressor import Compressor
from score_video.packed import PackedVideos
from score_video.serving.counters import count_milliseconds, count_video
from score_video.serving.setting import VARIABLE, engine_compressor, read_setting
from score_video.serving.vllm_gate import check_gate

logger = init_logger(f"vllm.plugins.{__name__}")

COUNTS = {"evs": evs.compute_retained_tokens_count, "vidcom2": vidcom2.compute_retained_tokens_count}
"""vLLM's formulas: (tokens of a frame, frames, q=rate) -> how many tokens of a video stay."""


class Compressing:
    """What all kinds share; it comes before vLLM's class in the bases. Where no rate is set all is vLLM's own.

    Attributes:
        formulas: of :data:`COUNTS`, those by which vLLM's processor of such models counts placeholders. It counts by
            "evs" where the setting names another.
    """

    formulas: ClassVar[tuple[str, ...]] = ("evs",)

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        setting = read_setting()
        compressor = engine_compressor(setting)
        self._gate = compressor.gate
        # a Compressor is no nn.Module: its weights are not among those that vLLM loads
        self._after_tower: Compressor = replace(compressor, before_tower=None, halo=0)
        self._positions_are_kept = bool(vllm_config.model_config.uses_mrope)
        self._counts_videos = get_tensor_model_parallel_rank() == 0  # all ranks choose the same
        spec = vllm_config.model_config.multimodal_config.get_video_pruning_spec()
        self._prunes = spec is not None
        if spec is None:
            logger.warning("%s is %r, but videos go in whole: there is no --video-pruning-rate", VARIABLE, setting)
            return
        method, rate = spec
        if self._gate is not None:
            check_gate(self._gate, type(self).__name__, getattr(self, "visual", None), vllm_config, rate)
        formula = method if method in self.formulas else "evs"
        self._count = partial(COUNTS[formula], q=rate)
        logger.info(
            "score-video %s chooses the tokens of videos by %r; how many is vLLM's formula of %r at rate %s (the "
            "retention that a compressor was saved with is not used)",
            score_ext.__version__,
            setting,
            formula,
            rate,
        )
        if self._gate is not None:
            logger.info(
                "score-video chooses by %r what the vision tower sees, and a halo of %d",
                self._gate.name,
                self._gate.halo,
            )

    @contextmanager
    def _choosing(self) -> Iterator[None]:
        """Counts the host's time."""
        began = time.perf_counter()
        with gpu_sync_allowed():  # some training-free methods wait for the device
            yield
        if self._counts_videos:
            count_milliseconds((time.perf_counter() - began) * 1000)

    def _kept(self, tokens: Tensor, grid: tuple[int, int, int], seen: Seen | None = None) -> Tensor:
        """The rows of one video to keep.

        Always one video: what is kept of it must not depend on which others are served at the same time.

        Args:
            tokens: [T * N, D] of the language model's width.
            grid: T, and the rows and columns of tokens.
            seen: which of them the vision tower has seen; the others are filled in. None: all.

        Returns:
            int64 [k], ascending; k as vLLM's placeholders for it.
        """
        frames, rows, columns = grid
        count = self._count(rows * columns, frames)
        with self._choosing():
            videos = PackedVideos.from_frames([tokens.view(frames, rows, columns, -1)])
            index = self._after_tower.select_seen(videos, seen, keep=[count]).index
        if self._counts_videos:
            count_video(len(tokens), count)
        return index
