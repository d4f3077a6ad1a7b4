"""The chat model ``score`` of lmms-eval: its own class for a model's family, with the videos compressed.

Imported by lmms-eval alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts, unwrap_generation_output
from lmms_eval.api.model import lmms
from lmms_eval.utils import simple_parse_args_string
from transformers import AutoConfig

from score_video.commands.options import compressor_of_options
from score_video.compressor import PRETRAINED, Compressor
from score_video.errors import ScoreError
from score_video.evaluation_harness.recording import Recorder, Watched
from score_video.evaluation_harness.smaller import SMALLER, SmallerVideos
from score_video.methods import METHODS
from score_video.mllm.wrapping import wrap

NONE = "none"
"""``compressor=none``: the stock model, its calls measured."""

_OWN_CLASSES = {
    "qwen2_5_vl": "lmms_eval.models.chat.qwen2_5_vl:Qwen2_5_VL",
    "qwen3_vl": "lmms_eval.models.chat.qwen3_vl:Qwen3_VL",
    "qwen3_vl_moe": "lmms_eval.models.chat.qwen3_vl:Qwen3_VL",
}
"""model_type -> lmms-eval's class; others go through this package's reader (:mod:`.family_chat`)."""


@dataclass
class RecordedCounts(TokenCounts):  # type: ignore[misc]
    """What lmms-eval writes into the log of samples as ``token_counts``.

    Attributes:
        score: what :meth:`.recording.Recorder.take` returned.
    """

    score: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "score": self.score}


class Score(lmms):  # type: ignore[misc]
    """Any video MLLM that ``Compressor.wrap`` takes. Made with arguments it is an object of lmms-eval's own class."""

    is_simple = False

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Any:
        """What ``--model_args`` says, with what the command's other options say."""
        others = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return make(**{**others, **simple_parse_args_string(arg_string)})


def make(
    *,
    pretrained: str,
    compressor: str = PRETRAINED,
    retention: float | None = None,
    selection: str | None = None,
    seed: int | None = None,
    max_batch_size: int | None = None,
    **options: Any,
) -> Any:
    """A model of lmms-eval's whose ``generate`` compresses.

    Args:
        pretrained: folder or id of the model.
        compressor: a folder or an id, as for :meth:`score_video.Compressor.from_pretrained`; a method's name; a rule of
            your own, "package.module:name"; "pretrained"; "resize" or "fewer-frames": the stock model on smaller
            videos, of as many tokens as a compressor would keep; or "none": the stock model.
        retention, selection, seed: the compressor's; None: as it was saved, or its default.
        max_batch_size: the largest automatic batch size, which lmms-eval's chat models do not have.
        options: those of lmms-eval's class for the family. Without an accelerator ``device`` is "cpu" unless given.

    Raises:
        ScoreError, OSError: the compressor does not exist or the settings do not go with it.
        TypeError: the family is not supported.
    """
    del max_batch_size
    chosen = _compressor(compressor, retention, selection, seed)
    options = {name: value for name, value in options.items() if value is not None}
    if "device" not in options and not torch.accelerator.is_available():
        options["device"] = "cpu"
    if options.get("device") == "cpu":
        options.setdefault("device_map", "cpu")
    kind = AutoConfig.from_pretrained(pretrained).model_type
    module, _, name = _OWN_CLASSES.get(kind, "score_video.evaluation_harness.family_chat:FamilyChat").partition(":")
    base = getattr(import_module(module), name)
    model: Any = type("Score", (_Recorded, base), {})(pretrained=pretrained, **options)
    smaller = None
    if compressor in SMALLER:
        assert retention is not None
        # in this package's class what reads the videos stands before the processor
        holder = model.processor if hasattr(model.processor, "reads") else model
        holder.processor = smaller = SmallerVideos(holder.processor, compressor, retention)
    model.recorder = Recorder(model.model, None if chosen is None else wrap(model.model, chosen), smaller)
    return model


def _compressor(name: str, retention: float | None, selection: str | None, seed: int | None) -> Compressor | None:
    if name == NONE:
        if given := [key for key, value in (("retention", retention), ("selection", selection)) if value is not None]:
            raise ScoreError(f"{given[0]} must not be given with compressor=none, which keeps everything")
        return None
    if name in SMALLER:
        if retention is None or selection is not None:
            raise ScoreError(f"compressor={name} must be given with a retention, and without a selection")
        return Compressor("uniform", retention=1.0)  # keeps all that there is: it counts
    by_rule = ":" in name or name in METHODS
    policy, method = (None, name) if by_rule else (None if name == PRETRAINED else name, None)
    return compressor_of_options(policy, method, retention, selection, seed)


class _Recorded:
    """Before one of lmms-eval's classes: each answer is logged with what was measured of it."""

    recorder: Recorder
    task_dict: Any

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        plain = self.task_dict
        self.task_dict = Watched(plain, self.recorder)
        try:
            results = super().generate_until(requests)  # type: ignore[misc]
        finally:
            self.task_dict = plain
        return [self._with_record(request, result) for request, result in zip(requests, results, strict=True)]

    def _with_record(self, request: Instance, result: Any) -> GenerationResult:
        text, counts = unwrap_generation_output(result)
        _, _, _, document, task, split = request.args
        record = self.recorder.take((task, split, document))
        if record is None:
            return GenerationResult(text, counts)
        return GenerationResult(text, RecordedCounts(**vars(counts or TokenCounts()), score=record))
