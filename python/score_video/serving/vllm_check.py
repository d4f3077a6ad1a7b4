"""Whether an installed vLLM has what the plugin relies on, by its sources: names, signatures, calls and lines.

Releases are not listed: one that has all of it is served, one that has not is refused with what is missing. Nothing of
vLLM is imported for that, so that the check also reads a release that does not run here.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RAN = ("0.32.0",)
"""The releases that the tests in tests/score_video/serving ran on; others that pass the check are served and said to
have been checked alone."""


@dataclass(frozen=True)
class Need:
    """Something that the plugin relies on.

    Attributes:
        file: path of a source file in vLLM's package.
        name: a function, class or method ("Class.method") in it.
        parameters: what it takes by these names, in this order, self left out; others must have defaults. None: any.
        calls: a function that it calls, and the arguments that it gives by name.
        line: a statement or expression in it, as Python writes it.
    """

    file: str
    name: str
    parameters: tuple[str, ...] | None = None
    calls: tuple[str, tuple[str, ...]] | None = None
    line: str | None = None

    def __str__(self) -> str:
        what = f"{self.name} in vllm/{self.file}"
        if self.parameters is not None:
            return f"{what} with the parameters ({', '.join(self.parameters)})"
        if self.calls is not None:
            return f"{what} that calls {self.calls[0]} with {', '.join(self.calls[1])}"
        return what if self.line is None else f"{what} with `{self.line}`"


_ROOM = "model_executor/models"
_QWEN2_5, _QWEN3, _NANO = f"{_ROOM}/qwen2_5_vl.py", f"{_ROOM}/qwen3_vl.py", f"{_ROOM}/nano_nemotron_vl.py"
_INPUT = ("input_ids", "multimodal_embeddings", "mrope_positions", "num_computed_tokens")
_PROMPT = ("input_tokens", "mm_features")
_COUNT = ("tokens_per_frame", "num_frames", "q")
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


def installed() -> Path:
    """The folder of the installed vLLM's package; it is not imported. Raises ModuleNotFoundError: there is none."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
    return Path(spec.origin).parent


def missing(package: Path) -> list[str]:
    """What the plugin relies on and a vLLM does not have, in words.

    Args:
        package: the folder ``vllm`` of an installed or unpacked release.
    """
    return [str(need) for need in NEEDS if not _has(package, need)]


def _has(package: Path, need: Need) -> bool:
    found = _definitions(package / need.file).get(need.name)
    if found is None:
        return False
    if need.parameters is not None:
        return isinstance(found, ast.FunctionDef) and _takes(found, need.parameters)
    if need.calls is not None:
        function, arguments = need.calls
        calls = (node for node in ast.walk(found) if isinstance(node, ast.Call))
        named = ({word.arg for word in call.keywords} for call in calls if ast.unparse(call.func) == function)
        return any(names >= set(arguments) for names in named)
    return need.line is None or any(ast.unparse(node) == need.line for node in ast.walk(found) if _is_code(node))


def _takes(function: ast.FunctionDef, parameters: tuple[str, ...]) -> bool:
    """Whether it can be called with these and nothing else."""
    given = function.args
    places = [argument.arg for argument in (*given.posonlyargs, *given.args) if argument.arg not in ("self", "cls")]
    words = [argument.arg for argument in given.kwonlyargs]
    optional = {
        *places[len(places) - len(given.defaults) :],
        *(word for word, value in zip(words, given.kw_defaults, strict=True) if value is not None),
    }
    names = [*places, *words]
    return names[: len(parameters)] == list(parameters) and set(names[len(parameters) :]) <= optional


def _is_code(node: ast.AST) -> bool:
    return isinstance(node, (ast.stmt, ast.expr))


@cache
def _definitions(file: Path) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """Functions, classes and "Class.method" of a file; nothing where it is not there."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError):
        return {}
    return dict(_named(tree))


def _named(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    # of overloads the last, which is the function, is what stays in the dict
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner
