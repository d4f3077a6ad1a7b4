"""What a comparison will download, and about how long it takes by the floating-point operations of its models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from score_video.benchmarks.config import Comparison
from score_video.benchmarks.protocols import QUESTIONS
from score_video.benchmarks.runs import Run, Settings

FRAME = (576, 1024)
"""Height and width of the frames that estimates are for: 16:9, as large as lmms-eval's classes and ours let through."""
FRAMES = 32
"""Of each video, where ``max_num_frames`` does not say."""
TERAFLOPS = 300.0
"""Floating-point operations a second that estimates are for, in 10^12."""
_FEWER_PATCHES = ("resize", "fewer-frames")
_WEIGHTS = (".safetensors", ".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class Work:
    """A prompt with one video.

    Attributes:
        patches, tokens: what the vision tower sees of the video, and what the language model does.
        text: the other tokens of the prompt.
        tower, decoder: parameters of the vision side, and of the language model's layers.
        width, layers: size of the language model's states, and how many layers it has.
    """

    patches: int
    tokens: int
    text: int
    tower: int
    decoder: int
    width: int
    layers: int

    def flops(self, run: Run) -> float:
        """To the first token of an answer: two for each parameter and token, and the language model's causal attention.
        The tower's attention is left out; of a mixture of experts all count."""
        share = run.retention or 1.0
        patches = self.patches * (share if run.compressor in _FEWER_PATCHES else 1.0)
        prompt = self.tokens * share + self.text
        return 2 * self.tower * patches + 2 * self.decoder * prompt + 2 * prompt**2 * self.width * self.layers


def work_of(source: str, frames: int) -> Work:
    """Of a model, from its configuration and its processor; no weights are loaded or downloaded.

    Args:
        source: a folder, or an id on the hub.

    Raises:
        ScoreError, OSError: as :mod:`score_video.mllm.load`.
    """
    import transformers

    from score_video.mllm.conversation import Clip, chat_ids, chat_text, processor_inputs
    from score_video.mllm.load import load_processor
    from score_video.mllm.registry import family_of_checkpoint

    processor = load_processor(source)
    config: Any = transformers.AutoConfig.from_pretrained(source)
    family = family_of_checkpoint(config.model_type)
    loader: Any = getattr(transformers, (family and family.loader) or "AutoModelForImageTextToText")
    with torch.device("meta"):
        model = loader.from_config(config) if hasattr(loader, "from_config") else loader(config)
    decoder = model.get_decoder()
    embedding = model.get_input_embeddings().weight.numel()
    in_decoder = sum(parameter.numel() for parameter in decoder.parameters())
    head = model.get_output_embeddings()
    tied = head is None or head.weight is model.get_input_embeddings().weight
    outside = sum(parameter.numel() for parameter in model.parameters()) - in_decoder
    text = config.get_text_config()

    clip = Clip(torch.zeros(frames, *FRAME, 3, dtype=torch.uint8), torch.arange(frames).double(), float(frames))
    prompt = chat_text(processor, "What happens in this video?")
    inputs = processor_inputs(processor, clip, prompt)
    around = len(chat_ids(processor, prompt))
    pixels = next(value for name, value in inputs.items() if name.startswith("pixel_values"))
    patch = int(config.vision_config.patch_size) ** 2 * pixels_in_depth(config, pixels)
    return Work(
        patches=pixels.numel() // patch,
        tokens=inputs["input_ids"].shape[1] - around,
        text=around,
        tower=outside - (0 if tied else head.weight.numel()),
        decoder=in_decoder - embedding,
        width=text.hidden_size,
        layers=text.num_hidden_layers,
    )


def pixels_in_depth(config: Any, pixels: torch.Tensor) -> int:
    """Values of a patch for each of its pixels: channels, and frames where several are one patch."""
    if pixels.ndim > 2:  # whole frames
        return 3
    return int(pixels.shape[-1]) // int(config.vision_config.patch_size) ** 2


def estimate(comparison: Comparison, teraflops: float = TERAFLOPS) -> str:
    """Lines on what is downloaded and how long it takes, of what can be found out here."""
    settings = comparison.settings
    models = list(dict.fromkeys(run.model for run in comparison.runs))
    lines = ["Downloads:"]
    lines += [f"  model {model}: {download_of(model, 'model')}" for model in models]
    lines += [f"  data of {task}: {of}" for task in settings.tasks for of in datasets_of(task, settings)]
    given = re.search(r"(?:^|,)max_num_frames=(\d+)", settings.model_args)
    frames = int(given[1]) if given else FRAMES
    lines.append(
        f"By FLOPs, {frames} frames of {FRAME[1]}x{FRAME[0]} a video, to the first token of an answer "
        "(without decoding, loading and the other tokens of answers):"
    )
    questions = questions_of(settings)
    for model in models:
        runs = [run for run in comparison.runs if run.model == model]
        try:
            work = work_of(model, frames)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            lines.append(f"  {model}: not known ({' '.join(str(error).split())})")
            continue
        each = sum(work.flops(run) for run in runs)
        line = f"  {model}: {work.tokens} visual tokens; {each / 1e12:,.1f} TFLOP a question in {len(runs)} runs"
        if questions is not None:
            hours = each * questions / (teraflops * 1e12) / 3600
            line += f"; {questions} questions, {hours:,.2f} hours at {teraflops:g} TFLOP/s"
        lines.append(line)
    if questions is None:
        lines.append("  How many questions the tasks ask is not known here: --limit says how many to take.")
    return "\n".join(lines)


def questions_of(settings: Settings) -> int | None:
    """Of all tasks together; None: it is not known."""
    counts = [QUESTIONS.get(task, settings.limit) for task in settings.tasks]
    if None in counts:
        return None
    return sum(min(count, settings.limit or count) for count in counts if count is not None)


def download_of(source: str, kind: str) -> str:
    """How large a repository of the hub is ("model" or "dataset"), and what of it is here already."""
    if Path(source).is_dir():
        return "is here"
    from huggingface_hub import HfApi, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cached = sum(
            one.size_on_disk for one in scan_cache_dir().repos if (one.repo_id, one.repo_type) == (source, kind)
        )
    except CacheNotFound:
        cached = 0
    here = f"{cached / 1e9:.1f} GB in the cache"
    try:
        found: Any = HfApi().repo_info(source, repo_type=kind, files_metadata=True)
    except Exception as error:  # whatever the hub, the network or an offline mode say
        return f"{here}; the hub does not tell its size ({type(error).__name__})"
    files = found.siblings or []
    size = sum(file.size or 0 for file in files if kind != "model" or file.rfilename.endswith(_WEIGHTS))
    return f"{size / 1e9:.1f} GB, {here}"


def datasets_of(task: str, settings: Settings) -> Sequence[str]:
    """Where a task's questions and videos come from, as lmms-eval's file of the task has it, with sizes."""
    if find_spec("lmms_eval") is None:
        return ["not known without lmms-eval"]
    from lmms_eval.tasks import TaskManager
    from lmms_eval.utils import load_yaml_config

    index = TaskManager("ERROR", include_path=settings.include_path, model_name="score").task_index
    repositories: dict[str, None] = {}

    def visit(name: str) -> None:
        path = index[name]["yaml_path"] if name in index else -1
        config = {} if path == -1 else load_yaml_config(path, mode="simple")
        if isinstance(config.get("task"), list):
            for member in config["task"]:
                visit(member if isinstance(member, str) else member["task"])
        elif "dataset_path" in config:
            repositories[config["dataset_path"]] = None

    visit(task)
    if not repositories:
        return ["not known to lmms-eval"]
    return [f"{name}: {download_of(name, 'dataset')}" if "/" in name else "files of your own" for name in repositories]
