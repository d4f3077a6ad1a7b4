"""A chat model of lmms-eval for families that it has no class for which reads videos: here this package does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from lmms_eval.api.model import lmms
from lmms_eval.models.chat.huggingface import Huggingface
from transformers import AutoConfig, BatchFeature

from score_video.commands.ask import DTYPES
from score_video.errors import ScoreError
from score_video.mllm.adapter import find_adapter
from score_video.mllm.conversation import batch_inputs, read_clip
from score_video.mllm.load import load_processor
from score_video.mllm.registry import family_of_checkpoint


class FamilyChat(Huggingface):  # type: ignore[misc]
    """lmms-eval's generic chat model, but for loading (it takes the model without its language head in transformers 5)
    and for reading videos (it does not choose frames)."""

    def __init__(
        self,
        pretrained: str,
        device: str = "cuda",
        device_map: str | None = None,
        batch_size: int | str = 1,
        use_cache: bool = True,
        attn_implementation: str | None = None,
        dtype: str = "bfloat16",
        max_num_frames: int = 32,
        fps: float | None = None,
        max_pixels: int = 768 * 768,
        system_prompt: str | None = None,
        reasoning_prompt: str | None = None,
    ) -> None:
        """
        Args:
            pretrained: folder or id of the model.
            device, device_map: where it runs; ``device_map`` of accelerate, "auto" among them.
            batch_size: prompts at a time.
            use_cache, attn_implementation, system_prompt, reasoning_prompt: as lmms-eval's own; of the two prompts the
                latter counts.
            dtype: what the weights are loaded as: "auto", "bfloat16", "float16" or "float32".
            max_num_frames: how many frames of each video, evenly spread.
            fps: frames a second of videos that are short enough for this to make fewer.
            max_pixels: frames with more are scaled down, before the processor's own scaling.
        """
        lmms.__init__(self)
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ScoreError(f"batch_size must be a number of prompts, got {batch_size!r}")
        if fps is not None and not fps > 0:
            raise ScoreError(f"fps must be above 0, got {fps}")
        if dtype not in DTYPES:
            raise ScoreError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
        self.accelerator = Accelerator()
        several = self.accelerator.num_processes > 1
        self._rank = self.accelerator.local_process_index if several else 0
        self._world_size = self.accelerator.num_processes if several else 1
        self._device = torch.device(f"cuda:{self._rank}" if several else device)
        self.device_map = str(self._device) if several else device_map or str(self._device)
        kind = AutoConfig.from_pretrained(pretrained).model_type
        family = family_of_checkpoint(kind)
        loader = getattr(transformers, (family and family.loader) or "AutoModelForImageTextToText")
        self._model = loader.from_pretrained(
            pretrained,
            dtype=DTYPES[dtype] or "auto",
            device_map=self.device_map,
            attn_implementation=attn_implementation,
            use_safetensors=True,
            trust_remote_code=False,
        ).eval()
        self.processor = _Reader(load_processor(pretrained), self._model, max_num_frames, max_pixels, fps)
        self._tokenizer = self.processor.tokenizer
        self._config = self._model.config
        self._max_length = 2048
        self.batch_size_per_gpu = int(batch_size)
        self.use_cache = use_cache
        self.max_num_frames = max_num_frames
        prompt = reasoning_prompt or system_prompt
        self.system_prompt = self._resolve_system_prompt(prompt) if prompt else None


class _Reader:
    """A processor that is given the paths of videos, and reads them.

    Attributes:
        reads: True.
        processor: what gets the frames.
    """

    reads = True

    def __init__(self, processor: Any, model: Any, num_frames: int, max_pixels: int, fps: float | None) -> None:
        self.processor = processor
        self._model = model
        self._num_frames = num_frames
        self._max_pixels = max_pixels
        self._fps = fps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)

    def __call__(
        self, text: Sequence[str], images: Sequence[Any], videos: Sequence[Any], audios: Sequence[Any], **options: Any
    ) -> BatchFeature:
        """Inputs of prompts with one video each, or with none."""
        if audios or len(videos) not in (0, len(text)) or (videos and images):
            shown = f"{len(videos)} videos, {len(images)} images, {len(audios)} recordings in {len(text)} prompts"
            raise ScoreError(f"a prompt must show one video, or images, got {shown}")
        if not videos:
            inputs = self.processor(text=list(text), images=list(images) or None, padding_side="left", **options)
        else:
            clips = [read_clip(video, self._num_frames, self._max_pixels, self._fps) for video in videos]
            inputs = batch_inputs(self.processor, clips, text, find_adapter(self._model).processor_options)
        return BatchFeature(dict(inputs)).to(self._model.dtype)  # floats alone
