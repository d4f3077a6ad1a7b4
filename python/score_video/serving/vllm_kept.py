"""Videos of which a request brings the kept tokens alone, as ``score embed`` wrote them: no decoding, no vision tower.

vLLM's own interface for models from elsewhere is used: a processor of the model's class, which knows the further fields
of :func:`.kept.video_embeds`. What comes in is checked here, in the server, before the engine sees any of it.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import DictEmbeddingItems
from vllm.multimodal.processing import PromptUpdateDetails

from score_video.errors import ScoreError
from score_video.serving.identity import checkpoint_identity, decider_identity
from score_video.serving.setting import engine_compressor, read_setting

_FIELDS = {"video_embeds", "video_grid_thw", "score_index", "score_counts", "score_about"}


def register(made: Any, base: Any) -> None:
    """Gives a class of ours the processor of vLLM's class, with the fields of compressed videos."""
    factory = base._processor_factory
    info = types.new_class("Info", (_Info, factory.info))
    processor = types.new_class("Processor", (_Processor, factory.processor))
    MULTIMODAL_REGISTRY.register_processor(processor, info=info, dummy_inputs=factory.dummy_inputs)(made)


def _fields(data: Mapping[str, Tensor]) -> dict[str, MultiModalFieldConfig]:
    counts = data["score_counts"].flatten()
    host = partial(MultiModalFieldConfig.batched, "video", keep_on_cpu=True)
    return {
        "video_embeds": MultiModalFieldConfig.flat_from_sizes("video", counts),
        "score_index": MultiModalFieldConfig.flat_from_sizes("video", counts),
        **{name: host() for name in ("video_grid_thw", "score_counts", "score_about")},
        **{name: host() for name in ("timestamps", "second_per_grid_ts") if name in data},
    }


class _Info:
    """Parses what a request brings."""

    def get_data_parser(self) -> Any:
        parser = super().get_data_parser()  # type: ignore[misc]
        parser.__class__ = types.new_class("Parser", (_Parser, type(parser)))
        parser.score_context = self.ctx  # type: ignore[attr-defined]
        return parser


class _Parser:
    """Tells compressed videos from others, and checks them."""

    score_context: Any

    def _parse_video_data(self, data: Any) -> Any:
        if not isinstance(data, Mapping) or "score_index" not in data:
            return super()._parse_video_data(data)  # type: ignore[misc]
        check_kept(data, self.score_context.model_config)
        return DictEmbeddingItems(data, modality="video", required_fields=_FIELDS, fields_factory=_fields)


class _Processor:
    """Counts placeholders of compressed videos by how many tokens they bring."""

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)  # type: ignore[misc]
        return {**fields, **(_fields(hf_inputs) if "score_counts" in hf_inputs else {})}

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Sequence[Any]:
        token = self.info.get_hf_config().video_token_id  # type: ignore[attr-defined]

        def of_kept(own: Any, number: int) -> Any:
            whole, item = own(number), out_mm_kwargs["video"][number]
            if "score_counts" not in item:
                return whole
            ids = whole.full if isinstance(whole, PromptUpdateDetails) else whole
            first = ids.index(token)  # all placeholders stand together, in the first frame
            kept = [token] * int(item["score_counts"].data)
            ids = [*ids[:first], *kept, *(other for other in ids[first:] if other != token)]
            return PromptUpdateDetails.from_seq(ids) if isinstance(whole, PromptUpdateDetails) else ids

        updates = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)  # type: ignore[misc]
        return [
            replace(update, replacement=partial(of_kept, update.replacement)) if update.modality == "video" else update
            for update in updates
        ]


def check_kept(data: Mapping[str, Any], model_config: Any) -> None:
    """Sees that compressed videos are whole, and of this model and compressor.

    Raises:
        ScoreError: they are not; names what differs.
    """
    if model_config.multimodal_config.get_video_pruning_spec() is None:
        raise ScoreError("compressed videos need a server with --video-pruning-rate")
    if lacking := sorted(_FIELDS - data.keys()):
        raise ScoreError(f"video_embeds of a compressed video must have {lacking[0]}")
    if odd := [name for name, value in data.items() if not isinstance(value, Tensor)]:
        raise ScoreError(f"video_embeds: {odd[0]} must be a tensor, got {type(data[odd[0]]).__name__}")
    config = model_config.hf_config
    vision, counts, grids = config.vision_config, data["score_counts"].flatten(), data["video_grid_thw"].reshape(-1, 3)
    width = vision.out_hidden_size * (1 + len(getattr(vision, "deepstack_visual_indexes", ())))
    rows, index = data["video_embeds"], data["score_index"]
    if rows.ndim != 2 or rows.shape[1] != width or not rows.is_floating_point() or not rows.isfinite().all():
        raise ScoreError(f"video_embeds must be finite numbers [K, {width}], got {rows.dtype} {list(rows.shape)}")
    if len(counts) != len(grids) or index.shape != (len(rows),) or int(counts.sum()) != len(rows) or (counts < 1).any():
        raise ScoreError("score_counts must count the rows of video_embeds and score_index, at least 1 for each video")
    about = data["score_about"]
    if about.dtype != torch.uint8 or about.ndim != 2 or len(about) != len(grids):
        raise ScoreError("score_about must be uint8, a row for each video")
    for places, grid, said in zip(index.split(counts.tolist()), grids, about, strict=True):
        frames, height, columns = grid.tolist()
        tokens = frames * (height // vision.spatial_merge_size) * (columns // vision.spatial_merge_size)
        if min(frames, height, columns) < 1 or places[0] < 0 or places[-1] >= tokens or (places.diff() < 1).any():
            raise ScoreError(f"score_index must be ascending places of the {tokens} tokens of a video")
        times = data.get("timestamps", data.get("second_per_grid_ts"))
        if times is None or len(times) != len(grids) or not times.isfinite().all():
            raise ScoreError("video_embeds of a compressed video must have timestamps or second_per_grid_ts")
        if "timestamps" in data and data["timestamps"].shape[-1] != frames:
            raise ScoreError(f"timestamps must be {frames}, one for each frame, got {data['timestamps'].shape[-1]}")
        _check_identity(bytes(said.tolist()), model_config)


def _check_identity(said: bytes, model_config: Any) -> None:
    try:
        about = json.loads(said.rstrip(b"\0"))
        video, model, decides = about["video"], about["model"], about["decides"]
        hashes = about["checkpoint_hash"], about["decider_hash"]
    except (KeyError, TypeError, ValueError):
        raise ScoreError("score_about must be what score embed says of a video") from None
    if hashes[0] != checkpoint_identity(model_config.model):
        raise ScoreError(
            f"{video!r} was compressed for {model!r}, of which this server's {model_config.model!r} differs"
        )
    setting = read_setting()
    if hashes[1] != _decider(setting):
        raise ScoreError(f"{video!r} was compressed by {decides!r}, and this server's compressor is {setting!r}")


def _decider(setting: str) -> str:
    return decider_identity(engine_compressor(setting))
