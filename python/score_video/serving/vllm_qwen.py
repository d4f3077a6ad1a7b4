"""Models of the Qwen family, and those built like them: what is kept has its position of the whole prompt."""

from __future__ import annotations

import importlib
import math
import types
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.utils.gpu_sync_debug import gpu_sync_allowed
from vllm.utils.torch_utils import async_tensor_h2d

import score_ext
from score_video.serving.vllm_base import Compressing
from score_video.serving.vllm_gate import Partial, choose, encode
from score_video.serving.vllm_positions import grid_positions, place_rows, split_places, with_places


def _numbers(values: Any) -> list[Any]:
    """Of a tensor on the host, or of one for each video where they differ in shape."""
    found: list[Any] = values.tolist() if isinstance(values, Tensor) else [value.tolist() for value in values]
    return found


class Placed(Compressing):
    """Models of the Qwen family: what is kept has the positions that it has in the whole prompt.

    Those of them that count positions in the pruned prompt instead (EXAONE) get no places.
    """

    def _merged(self, grid: Sequence[int]) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens; ``grid`` is of patches, before they are merged."""
        merge = self.visual.spatial_merge_size  # type: ignore[attr-defined]
        return int(grid[0]), int(grid[1]) // merge, int(grid[2]) // merge

    def _postprocess_image_embeds_evs(self, image_embeds_split: Sequence[Tensor], image_input: Any) -> Any:
        """[rows * columns, D] of each image -> the same with their places; called for all that vLLM encodes."""
        if not self._prunes or not self._positions_are_kept:
            return image_embeds_split
        grids = image_input["image_grid_thw"].tolist()
        return tuple(
            with_places(tokens, async_tensor_h2d(grid_positions(*self._merged(grid)), tokens.device))
            for tokens, grid in zip(image_embeds_split, grids, strict=True)
        )

    def _process_video_input(self, video_input: Any) -> Any:
        """As vLLM's own, [T * N, D * (1 + levels)] of each video; a :class:`Partial` of each where a gate chooses.

        One wait for the device in all: vLLM's attention is told by the host how long frames and windows are, and how
        many tokens of each a gate keeps depends on what is seen.
        """
        if self._gate is None or not self._prunes or video_input["type"] != "pixel_values_videos":
            return super()._process_video_input(video_input)  # type: ignore[misc]
        tower: Any = self.visual  # type: ignore[attr-defined]
        grids = video_input["video_grid_thw"].tolist()
        videos = video_input["pixel_values_videos"].split([math.prod(grid) for grid in grids])
        with self._choosing():
            chosen = []
            for pixels, grid in zip(videos, grids, strict=True):
                frames, rows, columns = self._merged(grid)
                least = self._count(rows * columns, frames)
                chosen.append(choose(self._gate, pixels, (frames, rows, columns), tower.patch_size, least))
            on_host = torch.cat(chosen).cpu().split([len(index) for index in chosen])  # type: ignore[no-untyped-call]
        halo = self._gate.halo
        return tuple(
            encode(tower, pixels, tuple(grid), halo, index, there)
            for pixels, grid, index, there in zip(videos, grids, chosen, on_host, strict=True)
        )

    def _choice(self, video: Tensor | Partial, grid: Sequence[int], width: int | None = None) -> tuple[Tensor, Tensor]:
        """Which tokens of a video are kept, int64 [k], and their rows, [k, D * (1 + levels)].

        Args:
            video: what :meth:`_process_video_input` returned of it.
            grid: frames, and rows and columns of patches.
            width: how many columns the compressor sees; None: all.
        """
        if isinstance(video, Partial):
            index = self._kept(video.dense(width), self._merged(grid), video.seen)
            return index, video.rows_of(index)
        index = self._kept(video[:, :width].contiguous(), self._merged(grid))
        return index, score_ext.gather(video, index)

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

    def _placed(self, rows: Tensor, index: Tensor, grid: Sequence[int], when: Any) -> Tensor:
        """What vLLM is handed for a video: its kept tokens and what else is its part of the prompt, with places.

        Args:
            rows: [k, D * (1 + levels)].
            index: int64 [k], which of the video's tokens they are.
            grid: frames, and rows and columns of patches.
            when: the seconds between two steps in time, or the time of each; as the family's processor has it.
        """
        raise NotImplementedError

    def embed_multimodal(self, **inputs: Any) -> Any:
        """As vLLM's own; and videos of which only the kept tokens were sent (:mod:`.vllm_kept`)."""
        if (counts := inputs.get("score_counts")) is None:
            return super().embed_multimodal(**inputs)  # type: ignore[misc]
        sizes = _numbers(counts)
        rows = inputs["video_embeds"].to(self.visual.dtype).split(sizes)  # type: ignore[attr-defined]
        places, grids = inputs["score_index"].long().split(sizes), _numbers(inputs["video_grid_thw"])
        given = [inputs[name] for name in ("timestamps", "second_per_grid_ts") if name in inputs]
        times = _numbers(given[0]) if given else [None] * len(sizes)
        return tuple(self._placed(*parts) for parts in zip(rows, places, grids, times, strict=True))

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


class Run(Placed):
    """A video is a run of placeholders."""

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
        seconds = [None] * len(grids) if given is None else given.tolist()
        videos = []
        for tokens, grid, when in zip(video_embeds_split, grids, seconds, strict=True):
            index, rows = self._choice(tokens, grid)
            videos.append(self._placed(rows, index, grid, when))
        return tuple(videos)

    def _placed(self, rows: Tensor, index: Tensor, grid: Sequence[int], when: Any) -> Tensor:
        if not self._positions_are_kept:
            return rows
        second = 1.0 if when is None else when
        step = second * self.config.vision_config.tokens_per_second  # type: ignore[attr-defined]
        positions = async_tensor_h2d(grid_positions(*self._merged(grid), step), rows.device)
        return with_places(rows, positions.index_select(0, index))


class Timed(Placed):
    """Times stand between the frames; with Qwen3-VL each token brings features for the first layers too (DeepStack).

    The compressor sees the main features alone, those that ``compress_inputs`` shows it.
    """

    formulas = ("evs", "vidcom2")

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
        """[T * N, D * (1 + levels)] of each video -> its kept tokens and the text between its frames, with places."""
        videos = []
        grids = video_input["video_grid_thw"].tolist()
        for tokens, grid, times in zip(video_embeds_split, grids, video_input.timestamps, strict=True):
            index, rows = self._choice(tokens, grid, self.visual_dim)  # type: ignore[attr-defined]
            videos.append(self._placed(rows, index, grid, times))
        return tuple(videos)

    def _placed(self, rows: Tensor, index: Tensor, grid: Sequence[int], when: Any) -> Tensor:
        """Rows in the order of the whole prompt.

        It is made by sorting on the device: how many tokens a frame keeps is not known on the host, and waiting for it
        would hold up the step.
        """
        ids = self._ids(grid, when)
        video_token = self.config.video_token_id  # type: ignore[attr-defined]
        text = [number for number, token in enumerate(ids) if token != video_token]
        text_ids, text_numbers, token_numbers, positions = (
            async_tensor_h2d(part, rows.device)
            for part in (
                torch.tensor([ids[number] for number in text]),
                torch.tensor(text),
                torch.tensor([number for number, token in enumerate(ids) if token == video_token]),
                self._positions_of(ids, grid),
            )
        )
        between = rows.new_zeros(len(text), rows.shape[1])
        between[:, : self.visual_dim] = self.get_language_model().embed_input_ids(text_ids)  # type: ignore[attr-defined]
        numbers, order = torch.cat([text_numbers, token_numbers.index_select(0, index)]).sort()
        rows = torch.cat([between, rows]).index_select(0, order)
        lead = ids.index(self.config.vision_start_token_id) + 1  # type: ignore[attr-defined]
        return with_places(rows, positions.index_select(0, numbers), lead)

    def _ids(self, grid: Sequence[int], times: Sequence[float] | Tensor) -> list[int]:
        """What stands for a video in a prompt that is not pruned."""
        frames, rows, columns = self._merged(grid)
        config: Any = self.config  # type: ignore[attr-defined]
        processor: Any = importlib.import_module("vllm.model_executor.models.qwen3_vl").Qwen3VLMultiModalProcessor
        ids: list[int] = processor.get_video_repl(
            tokens_per_frame=[rows * columns] * frames,
            timestamps=times,
            tokenizer=self._tokenizer,  # type: ignore[attr-defined]
            vision_start_token_id=config.vision_start_token_id,
            vision_end_token_id=config.vision_end_token_id,
            video_token_id=config.video_token_id,
        ).full
        return ids

    def _positions_of(self, ids: list[int], grid: Sequence[int]) -> Tensor:
        """int64 [n, 3] of a video alone, not pruned."""
        data: Any = {"video_grid_thw": types.SimpleNamespace(data=torch.tensor(grid))}
        place = PlaceholderRange(offset=0, length=len(ids))
        feature = MultiModalFeatureSpec(data=data, modality="video", identifier="", mm_position=place)
        return self.get_mrope_input_positions(ids, [feature])[0].T.contiguous()
