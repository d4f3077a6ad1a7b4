"""vLLM's models, with which tokens of a video they keep decided by a :class:`~score_video.compressor.Compressor`.

How many is vLLM's own formula, because the prompt's placeholders are counted before there is a video. Every kept token
and all text have the positions of the whole prompt, which are vLLM's own too (:mod:`.vllm_positions` says how they get
there). Imported by vLLM, through the names in :data:`.vllm_plugin.MODELS`, where the plugin is switched on.

To add a model: a subclass here that overrides what vLLM calls to prune it, and its name in ``MODELS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from vllm.logger import init_logger
from vllm.model_executor.models import qwen2_5_vl, qwen3_vl, qwen3_vl_moe
from vllm.multimodal.inputs import PlaceholderRange
from vllm.multimodal.video_prune import evs, vidcom2
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

import score_ext
from score_video.compressor import Compressor
from score_video.packed import PackedVideos
from score_video.serving.setting import VARIABLE, engine_compressor, read_setting
from score_video.serving.vllm_positions import grid_positions, place_rows, split_places, with_places

logger = init_logger(f"vllm.plugins.{__name__}")

_COUNTS = {"evs": evs.compute_retained_tokens_count, "vidcom2": vidcom2.compute_retained_tokens_count}


class _Compressing:
    """What the models share; it comes before vLLM's class in the bases. Where no rate is set all is vLLM's own."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        setting = read_setting()
        # in a tuple nn.Module does not see it: its weights are not among those that vLLM loads
        self._score: tuple[Compressor] = (engine_compressor(setting),)
        spec = self.multimodal_config.get_video_pruning_spec()  # type: ignore[attr-defined]
        if spec is None:
            logger.warning("%s is %r, but videos go in whole: there is no --video-pruning-rate", VARIABLE, setting)
            return
        method, rate = spec
        self._count = _COUNTS[method]
        logger.info(
            "score-video %s chooses the tokens of videos by %r; how many is vLLM's formula of %r at rate %s (the "
            "retention that a compressor was saved with is not used)",
            score_ext.__version__,
            setting,
            method,
            rate,
        )

    def _kept(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """The rows of one video to keep.

        Always one video: what is kept of it must not depend on which others are served at the same time.

        Args:
            tokens: [T * N, D] of the language model's width.
            grid: T, and the rows and columns of patches before they are merged.

        Returns:
            int64 [k], ascending; k as vLLM's placeholders for it.
        """
        frames, rows, columns = self._merged(grid)
        count = self._count(rows * columns, frames, self.video_pruning_rate)  # type: ignore[attr-defined]
        (compressor,) = self._score
        with gpu_sync_allowed():  # some training-free methods wait for the device
            videos = PackedVideos.from_frames([tokens.view(frames, rows, columns, -1)])
            return compressor.select(videos, keep=[count]).index

    def _merged(self, grid: Sequence[int]) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens."""
        merge = self.visual.spatial_merge_size  # type: ignore[attr-defined]
        return int(grid[0]), int(grid[1]) // merge, int(grid[2]) // merge

    def _postprocess_image_embeds_evs(self, image_embeds_split: Sequence[Tensor], image_input: Any) -> Any:
        """[rows * columns, D] of each image -> the same with their places; called for all that vLLM encodes."""
        if not self.is_multimodal_pruning_enabled:  # type: ignore[attr-defined]
            return image_embeds_split
        grids = image_input["image_grid_thw"].tolist()
        return tuple(
            with_places(tokens, grid_positions(*self._merged(grid)).to(tokens.device, non_blocking=True))
            for tokens, grid in zip(image_embeds_split, grids, strict=True)
        )

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Positions int64 [3, N] of a prompt, and what is added to a token's number after it.

        They are those of the whole prompt, so that text and images have the right ones at once; a compressed video's
        placeholders have none before :meth:`recompute_mrope_positions`. (vLLM's own code takes a prompt in which
        anything stands after a pruned video for a longer one, and ends the engine.)
        """
        whole: list[int] = []
        features, done = [], 0
        for feature in sorted(mm_features, key=lambda feature: feature.mm_position.offset):
            first, last = feature.mm_position.offset, feature.mm_position.offset + feature.mm_position.length
            whole += input_tokens[done:first]
            item, done = input_tokens[first:last], last
            if feature.modality == "video":
                item = self._whole_video(item, feature.data["video_grid_thw"].data.tolist())
            features.append(replace(feature, mm_position=PlaceholderRange(offset=len(whole), length=len(item))))
            whole += item
        whole += input_tokens[done:]
        if len(whole) == len(input_tokens):
            own: tuple[Tensor, int] = super().get_mrope_input_positions(input_tokens, mm_features)  # type: ignore[misc]
            return own
        positions, _ = super().get_mrope_input_positions(whole, features)  # type: ignore[misc]
        video = self.config.video_token_id  # type: ignore[attr-defined]
        shorter = positions.new_zeros(3, len(input_tokens))
        shorter[:, torch.tensor(input_tokens) != video] = positions[:, torch.tensor(whole) != video]
        return shorter, int(positions.max()) + 1 - len(input_tokens)

    def _whole_video(self, item: list[int], grid: Sequence[int]) -> list[int]:
        """A video's part of the prompt as it is without pruning."""
        raise NotImplementedError

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[list[Tensor], Tensor, int]:
        """Takes the places off the embeddings in a chunk of a prompt, and puts them into its positions."""
        config: Any = self.config  # type: ignore[attr-defined]
        pairs = [split_places(embeddings) for embeddings in multimodal_embeddings]
        with gpu_sync_allowed():  # as vLLM's own does; positions are kept on the host
            prompt = input_ids.tolist() if isinstance(input_ids, Tensor) else input_ids
            places = [places.cpu() for _, places in pairs]
            placeholders = {config.image_token_id, config.video_token_id}
            positions = place_rows(mrope_positions, prompt, places, num_computed_tokens, placeholders)
            return [rows for rows, _ in pairs], positions, int(positions.max()) + 1 - len(prompt)


class Qwen2_5_VLForConditionalGeneration(_Compressing, qwen2_5_vl.Qwen2_5_VLForConditionalGeneration):  # type: ignore[misc]  # noqa: N801
    """Qwen2.5-VL: a video is a run of placeholders."""

    def _whole_video(self, item: list[int], grid: Sequence[int]) -> list[int]:
        frames, rows, columns = self._merged(grid)
        return item[:1] * (frames * rows * columns)

    def _postprocess_video_embeds_evs(self, video_embeds_split: Sequence[Tensor], video_input: Any) -> Any:
        """[T * N, D] of each video -> [k, D] of each, with places.

        A request with ``video_embeds`` may come without ``second_per_grid_ts``. vLLM then gives the whole prompt the
        positions of a second for each step in time, and so do we; its own pruning raises, in the middle of a step.
        """
        grids = video_input["video_grid_thw"].tolist()
        given = video_input.get("second_per_grid_ts")
        seconds = [1.0] * len(grids) if given is None else given.tolist()
        videos = []
        for tokens, grid, second in zip(video_embeds_split, grids, seconds, strict=True):
            index = self._kept(tokens, grid)
            step = second * self.config.vision_config.tokens_per_second
            positions = grid_positions(*self._merged(grid), step).to(tokens.device, non_blocking=True)
            videos.append(with_places(score_ext.gather(tokens, index), positions.index_select(0, index)))
        return tuple(videos)


class _CompressingQwen3(_Compressing):
    """Qwen3-VL: timestamps stand between the frames, and each token brings features for the first layers (DeepStack).

    The compressor sees the main features alone, those that ``compress_inputs`` shows it.
    """

    def _whole_video(self, item: list[int], grid: Sequence[int]) -> list[int]:
        config: Any = self.config  # type: ignore[attr-defined]
        _, rows, columns = self._merged(grid)
        whole: list[int] = []
        for token in item:  # all placeholders of a pruned video stand in its first frame
            if token != config.video_token_id:
                whole.append(token)
            if token == config.vision_start_token_id:
                whole += [config.video_token_id] * (rows * columns)
        return whole

    def _postprocess_video_embeds_evs(self, video_embeds_split: Sequence[Tensor], video_input: Any) -> Any:
        """[T * N, D * (1 + levels)] of each video -> its tokens among the embeddings of its timestamps."""
        videos = []
        grids = video_input["video_grid_thw"].tolist()
        for tokens, grid, timestamps in zip(video_embeds_split, grids, video_input.timestamps, strict=True):
            index = self._kept(tokens[:, : self.visual_dim].contiguous(), grid)  # type: ignore[attr-defined]
            kept = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device).index_fill_(0, index, True)
            with gpu_sync_allowed():  # vLLM writes a prompt with the timestamps, on the host
                per_frame = kept.view(grid[0], -1).sum(1).tolist()
            videos.append(
                self._create_final_video_embeddings(  # type: ignore[attr-defined]
                    video_embeddings=score_ext.gather(tokens, index),
                    num_tokens_per_frame=per_frame,
                    timestamps=timestamps,
                    video_grid_thw=grid,
                    retention_mask=kept,
                )
            )
        return tuple(videos)

    def _get_expanded_positions(self, **given: Any) -> Tensor:
        """The columns that vLLM puts beside a video's embeddings: our places, from the positions in vLLM's."""
        columns = super()._get_expanded_positions(**given)  # type: ignore[misc]
        # placeholders come after the first vision_start, which column 3 marks
        lead = columns[:, 3].argmax(0, keepdim=True) + 1
        nothing = columns.new_empty(len(columns), 0, dtype=self.model_config.dtype)  # type: ignore[attr-defined]
        return with_places(nothing, columns[:, :3], lead)


class Qwen3VLForConditionalGeneration(_CompressingQwen3, qwen3_vl.Qwen3VLForConditionalGeneration):  # type: ignore[misc]
    """Qwen3-VL."""


class Qwen3VLMoeForConditionalGeneration(_CompressingQwen3, qwen3_vl_moe.Qwen3VLMoeForConditionalGeneration):  # type: ignore[misc]
    """Qwen3-VL with a mixture of experts."""
