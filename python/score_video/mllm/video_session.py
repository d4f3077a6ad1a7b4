"""Question after question about one compressed video, whose keys and values are computed once."""

from __future__ import annotations

import copy
import inspect
import time
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from score_video.errors import ScoreError
from score_video.mllm.ask import Answer, FirstToken
from score_video.mllm.caches import CACHES
from score_video.mllm.compressed_video import CompressedVideo
from score_video.progress import Phases, synchronize


class VideoSession:
    """A model that has seen a video. Each question is answered for itself, as if it were the first.

    What comes before the question, the video in it, goes through the model once; a question's own tokens are what is
    left to do. The answer is that of ``model.generate(**video.inputs(model, processor, question))``.

    Attributes:
        video: what it has seen.
        milliseconds: what the video's keys and values took; None before the first question.
    """

    def __init__(self, model: Any, processor: Any, video: CompressedVideo) -> None:
        """model, processor: those of the video."""
        self.video = video
        self.milliseconds: float | None = None
        self._model = model
        self._processor = processor
        self._cache: Any = None
        self._seen: Tensor | None = None  # int64 [1, P], the ids whose keys and values are in the cache
        parameters = inspect.signature(model.forward).parameters
        self._cache_name = next(name for name in CACHES if name in parameters)

    @torch.no_grad()
    def ask(self, question: str, *, max_new_tokens: int = 64, streamer: Any = None) -> Answer:
        """Answers greedily.

        Args:
            question: about the video; not empty.
            max_new_tokens: the most tokens an answer may have, at least 1.
            streamer: one of transformers; gets the prompt's ids, then those of the answer as they come.

        Raises:
            ScoreError: an empty question, ``max_new_tokens`` below 1, or a chat template that writes the question in
                front of the video.
        """
        if max_new_tokens < 1:
            raise ScoreError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        phases = Phases(None, lambda: synchronize(self._model.device))
        with phases("prompt"):
            inputs, ids, before = self.video.prompt(self._model, self._processor, question)
        arguments = dict(inputs)
        if self._cache is None:
            with phases("video"):
                self._see(arguments, ids, before)
            self.milliseconds = phases.milliseconds["video"]
        assert self._seen is not None
        if not torch.equal(ids[:, :before], self._seen):
            raise ScoreError("processor must have a chat template that writes the question behind the video")
        start = time.perf_counter()
        clock = FirstToken()
        of_video = ("input_ids", "inputs_embeds", "mm_encoder_outputs")
        output = self._model.generate(
            input_ids=ids,
            **{name: value for name, value in arguments.items() if name not in of_video},
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=LogitsProcessorList([clock]),
            streamer=streamer,
            **{self._cache_name: copy.deepcopy(self._cache)},  # an answer adds to it
        )
        synchronize(self._model.device)
        end = time.perf_counter()
        new = output[0, ids.shape[1] :]
        return Answer(
            text=self._processor.tokenizer.decode(new, skip_special_tokens=True).strip(),
            visual_tokens=len(self.video.index),
            prompt_tokens=int(arguments["attention_mask"].sum()),
            new_tokens=len(new),
            milliseconds={**phases.milliseconds, "prefill": (clock.at - start) * 1000},
            rest=(end - clock.at) * 1000,
        )

    def _see(self, arguments: dict[str, Any], ids: Tensor, before: int) -> None:
        """Computes keys and values of the first ``before`` tokens of a prompt; positions are the whole prompt's."""
        given = {
            name: value[:, :before] if isinstance(value, Tensor) and value.shape[:2] == ids.shape else value
            for name, value in arguments.items()
        }
        given["position_ids"] = arguments["position_ids"][..., :before]
        output = self._model(**given, use_cache=True, logits_to_keep=1)
        self._cache, self._seen = output[self._cache_name], ids[:, :before]
