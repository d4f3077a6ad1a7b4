"""What the plugin relies on in vLLM's sources, all of it: names, signatures, calls and lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """Something that the plugin relies on.

    Attributes:
        file: path of a source file in vLLM's package.
        name: a function, class or method ("Class.method") in it.
        parameters: what it takes by these names, in this order, self left out; others must have defaults. None: any.
        calls: a function that it calls, and the arguments that it gives by name.
        line: a statement or expression in it, as Python writes it.
        reads: a mapping by its name in it, and all keys that it reads of that, in any order.
    """

    file: str
    name: str
    parameters: tuple[str, ...] | None = None
    calls: tuple[str, tuple[str, ...]] | None = None
    line: str | None = None
    reads: tuple[str, tuple[str, ...]] | None = None

    def __str__(self) -> str:
        what = f"{self.name} in vllm/{self.file}"
        if self.parameters is not None:
            return f"{what} with the parameters ({', '.join(self.parameters)})"
        if self.calls is not None:
            return f"{what} that calls {self.calls[0]} with {', '.join(self.calls[1])}"
        if self.reads is not None:
            return f"{what} that reads of {self.reads[0]} {', '.join(self.reads[1])} and nothing else"
        return what if self.line is None else f"{what} with `{self.line}`"


_ROOM = "model_executor/models"
_QWEN2_5, _QWEN3, _NANO = f"{_ROOM}/qwen2_5_vl.py", f"{_ROOM}/qwen3_vl.py", f"{_ROOM}/nano_nemotron_vl.py"
_INPUT = ("input_ids", "multimodal_embeddings", "mrope_positions", "num_computed_tokens")
_PROMPT = ("input_tokens", "mm_features")
_COUNT = ("tokens_per_frame", "num_frames", "q")
_ATTENTION = "model_executor/layers/attention/mm_encoder_attention.py"
_ENDS = ("attn_backend", "cu_seqlens", "hidden_size", "tp_size")
_MASK = ("video_embeds", "video_size_thw", "spatial_merge_size", "q")


def _methods(file: str, kind: str) -> tuple[Need, ...]:
    """What is overridden in a model of the Qwen family, and what calls it."""
    return (
        Need(file, f"{kind}.__init__", ("vllm_config", "prefix")),
        Need(file, f"{kind}.get_mrope_input_positions", _PROMPT),
        Need(file, f"{kind}.recompute_mrope_positions", _INPUT),
        Need(file, f"{kind}._postprocess_image_embeds_evs", ("image_embeds_split", "image_input")),
        Need(file, f"{kind}._postprocess_video_embeds_evs", ("video_embeds_split", "video_input")),
        Need(file, f"{kind}.embed_multimodal", calls=("self._postprocess_image_embeds_evs", ())),
        Need(file, f"{kind}.embed_multimodal", calls=("self._postprocess_video_embeds_evs", ())),
    )


def _tower(file: str, kind: str, keys: tuple[str, ...]) -> tuple[Need, ...]:
    """How a tower is called, and all that it reads of what it is told of a grid: ``keys``."""
    metadata = "encoder_metadata"
    held = ("self.spatial_merge_unit = self.spatial_merge_size ** 2", "self.patch_size", "self.tp_size")
    return (
        Need(file, f"{kind}.forward", ("x", "grid_thw", metadata)),
        Need(file, f"{kind}.forward", reads=(metadata, keys)),
        *(Need(file, f"{kind}.__init__", line=line) for line in held),
    )


_TOWERS = (
    # what is chosen before the tower takes the place of its run on whole videos
    *(
        need
        for file, kind in ((_QWEN2_5, "Qwen2_5_VL"), (_QWEN3, "Qwen3VL"))
        for need in (
            Need(file, f"{kind}ForConditionalGeneration._process_video_input", ("video_input",)),
            Need(
                file,
                f"{kind}ForConditionalGeneration.embed_multimodal",
                line="video_embeddings = self._process_video_input(multimodal_input)",
            ),
            Need(
                file,
                f"{kind}ForConditionalGeneration.embed_multimodal",
                line="video_embeddings = self._postprocess_video_embeds_evs(video_embeddings, multimodal_input)",
            ),
            Need(
                file,
                f"{kind}ForConditionalGeneration._parse_and_validate_video_input",
                calls=("Qwen2_5_VLVideoPixelInputs", ("type", "pixel_values_videos", "video_grid_thw")),
            ),
        )
    ),
    Need(_QWEN2_5, "Qwen2_5_VLVideoPixelInputs", line="type: Literal['pixel_values_videos']"),
    Need("config/multimodal.py", "MultiModalConfig", line="mm_encoder_tp_mode: MMEncoderTPMode = 'weights'"),
    Need("config/compilation.py", "CompilationConfig", line="cudagraph_mm_encoder: bool = False"),
    # the towers, and all that they want to know of a grid
    *_tower(
        _QWEN2_5,
        "Qwen2_5_VisionTransformer",
        (
            *("rotary_pos_emb_cos", "rotary_pos_emb_sin", "window_index", "reverse_indices"),
            *("cu_seqlens", "max_seqlen_full", "sequence_lengths_full"),
            *("cu_window_seqlens", "max_seqlen_window", "sequence_lengths_window"),
        ),
    ),
    Need(_QWEN2_5, "Qwen2_5_VisionTransformer.get_rope_by_thw", ("t", "h", "w")),
    Need(
        _QWEN2_5,
        "Qwen2_5_VisionTransformer.get_rope_by_thw",
        line="result = (cos_thw, sin_thw, window_index_thw, cu_seqlens_window_thw, cu_seqlens_thw)",
    ),
    # what it returns of positions stands window by window
    Need(
        _QWEN2_5,
        "Qwen2_5_VisionTransformer.get_rope_by_thw",
        line="cos_thw = cos_thw[window_index_thw_dev, :, :]",
    ),
    Need(_QWEN2_5, "Qwen2_5_VisionTransformer.invert_permutation", ("perm",)),
    *_tower(
        _QWEN3,
        "Qwen3_VisionTransformer",
        (
            *("pos_embeds", "rotary_pos_emb_cos", "rotary_pos_emb_sin"),
            *("cu_seqlens", "max_seqlen", "sequence_lengths"),
        ),
    ),
    Need(_QWEN3, "Qwen3_VisionTransformer.rot_pos_emb", ("grid_thw",)),
    Need(_QWEN3, "Qwen3_VisionTransformer.fast_pos_embed_interpolate", ("grid_thw",)),
    *(
        Need(_ATTENTION, f"MMEncoderAttention.{name}", parameters)
        for name, parameters in (
            ("compute_max_seqlen", ("attn_backend", "cu_seqlens")),
            ("maybe_compute_seq_lens", ("attn_backend", "cu_seqlens", "device")),
            ("maybe_recompute_cu_seqlens", (*_ENDS, "device", "fp8_padded_hidden_size")),
        )
    ),
)
"""What running a tower on a part of a video relies on (:mod:`.vllm_tower`)."""

NEEDS: tuple[Need, ...] = (
    # how models are replaced, and where their settings are
    Need("model_executor/models/registry.py", "_ModelRegistry.register_model", ("model_arch", "model_cls")),
    Need("model_executor/models/interfaces.py", "supports_multimodal_pruning", ("model",)),
    Need("config/multimodal.py", "MultiModalConfig.get_video_pruning_spec", ()),
    Need("config/multimodal.py", "MultiModalConfig.is_multimodal_pruning_enabled", ()),
    Need("config/model.py", "ModelConfig.uses_mrope"),
    Need("platforms/interface.py", "Platform.is_cpu", ()),
    Need("logger.py", "init_logger", ("name",)),
    Need("utils/gpu_sync_debug.py", "gpu_sync_allowed", ()),
    Need("utils/torch_utils.py", "async_tensor_h2d", ("data", "device")),
    Need("multimodal/inputs.py", "PlaceholderRange", line="offset: int"),
    Need("multimodal/inputs.py", "PlaceholderRange", line="length: int"),
    Need("multimodal/inputs.py", "MultiModalFeatureSpec", line="modality: str"),
    Need("multimodal/inputs.py", "MultiModalFeatureSpec", line="identifier: str"),
    Need("multimodal/inputs.py", "MultiModalFeatureSpec", line="mm_position: PlaceholderRange"),
    # the formulas of counts, what asks them, and the choices that are taken from vLLM
    Need("multimodal/video_prune/evs.py", "compute_retained_tokens_count", _COUNT),
    Need("multimodal/video_prune/vidcom2.py", "compute_retained_tokens_count", _COUNT),
    Need("multimodal/video_prune/evs.py", "compute_retention_mask", _MASK),
    Need("multimodal/video_prune/vidcom2.py", "compute_retention_mask", _MASK),
    Need(
        _QWEN2_5,
        "Qwen2_5_VLMultiModalProcessor._get_prompt_updates",
        calls=("compute_retained_tokens_count", ()),
    ),
    Need(_QWEN3, "Qwen3VLMultiModalProcessor._get_prompt_updates", calls=("count_fn", _COUNT)),
    Need(
        _NANO,
        "NanoNemotronVLMultiModalProcessor._get_prompt_repl_video",
        calls=("compute_retained_tokens_count", _COUNT),
    ),
    # videos on their way in, and what is counted
    Need("multimodal/media/video.py", "VideoMediaIO.load_bytes", ("data",)),
    Need("multimodal/media/video.py", "VideoMediaIO.load_base64", ("media_type", "data")),
    Need("multimodal/media/video.py", "VideoMediaIO.load_base64", calls=("self.load_bytes", ())),
    Need("multimodal/media/video.py", "VideoMediaIO.load_file", calls=("self.load_bytes", ())),
    Need("multimodal/media/base.py", "MediaWithBytes", line="media: _T"),
    Need("multimodal/video.py", "VideoLoader.compute_frames_index_to_sample", ("source", "target")),
    Need("exceptions.py", "VLLMValidationError.__init__", ("message", "parameter")),
    Need("distributed/parallel_state.py", "get_tensor_model_parallel_rank", ()),
    # the models
    *_methods(_QWEN2_5, "Qwen2_5_VLForConditionalGeneration"),
    *_methods(_QWEN3, "Qwen3VLForConditionalGeneration"),
    Need(
        _QWEN3,
        "Qwen3VLMultiModalProcessor.get_video_repl",
        (
            "tokens_per_frame",
            "timestamps",
            "tokenizer",
            "vision_start_token_id",
            "vision_end_token_id",
            "video_token_id",
        ),
    ),
    # all placeholders of a pruned video stand in its first frame
    Need(
        _QWEN3,
        "Qwen3VLMultiModalProcessor._get_prompt_updates",
        line="tokens_per_frame = [num_tokens] + [0] * (num_frames - 1)",
    ),
    Need(
        _QWEN3,
        "Qwen3VLForConditionalGeneration.__init__",
        line="self.visual_dim = config.vision_config.out_hidden_size",
    ),
    Need(f"{_ROOM}/qwen3_5.py", "Qwen3_5ForConditionalGeneration.__init__", ("vllm_config", "prefix")),
    Need(_NANO, "NemotronH_Nano_VL_V2.__init__", ("vllm_config", "prefix")),
    Need(_NANO, "NemotronH_Nano_VL_V2._process_video_input", calls=("compute_retention_mask", _MASK[1:])),
    *_TOWERS,
    # compressed videos in the place of others
    Need("multimodal/registry.py", "MultiModalRegistry.register_processor", ("processor", "info", "dummy_inputs")),
    Need("multimodal/parse.py", "MultiModalDataParser._parse_video_data", ("data",)),
    Need(
        "multimodal/parse.py", "DictEmbeddingItems.__init__", ("data", "modality", "required_fields", "fields_factory")
    ),
    Need("multimodal/inputs.py", "MultiModalFieldConfig.flat_from_sizes", ("modality", "size_per_item")),
    Need("multimodal/inputs.py", "MultiModalFieldConfig.batched", ("modality", "keep_on_cpu")),
    Need("multimodal/processing/processor.py", "PromptUpdateDetails.from_seq", ("seq",)),
    Need(_QWEN3, "Qwen3VLProcessingInfo.get_data_parser", ()),
    Need(f"{_ROOM}/qwen2_vl.py", "Qwen2VLProcessingInfo.get_data_parser", ()),
    # the runners, V1 on GPUs and CPUs, and V2
    Need("v1/worker/gpu_model_runner.py", "GPUModelRunner", calls=("self.model.recompute_mrope_positions", _INPUT)),
    Need("v1/worker/cpu_model_runner.py", "CPUModelRunner.load_model"),
    Need(
        "v1/worker/gpu/model_states/mm_pruning.py",
        "MultiModalPruner.recompute",
        calls=("self.model.recompute_mrope_positions", _INPUT),
    ),
    Need(
        "v1/worker/gpu/model_states/mm_pruning.py",
        "MultiModalPruner.strip",
        line="out = mm[:, :self.inputs_embeds_size]",
    ),
)
"""All that the plugin relies on."""
