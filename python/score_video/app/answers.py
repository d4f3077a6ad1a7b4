"""Questions about a clip, of a video MLLM: the answer from the tokens that are kept, beside the answer from all.

The vision tower runs once for each clip; where something is chosen before it, once more for the answer from all tokens,
whole. A further question changes the end of the prompt alone, so that all that came out of the video is used again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from score_video.app.choosing import selection_of
from score_video.app.encoded import FIRST_QUESTION, Encoded, Made
from score_video.app.streaming import Stop, Streamer
from score_video.before_tower import Gate
from score_video.commands.options import Chosen
from score_video.drawing.overlay import scale_to_grid
from score_video.errors import ScoreError
from score_video.mllm.adapter import Features
from score_video.mllm.ask import FirstToken, check_policy, see_clip, seen_frames
from score_video.mllm.compress import CompressedInputs, EncodedInputs
from score_video.mllm.conversation import Clip, chat_ids, chat_text, clip_of_video
from score_video.mllm.gated import check_gate
from score_video.mllm.load import load_model, load_processor
from score_video.packed import Selection
from score_video.progress import Phases, synchronize
from score_video.video.sampling import SampledVideo

MOST_NEW_TOKENS = 256
MOST_CHARACTERS = 1000
"""Of a question."""

Emit = Callable[[dict[str, Any]], None]
"""Is given what there is to tell, as it comes: see :meth:`AnsweringModel.ask`."""


@dataclass(frozen=True)
class SeenVideo:
    """What a model's vision side made of a clip, with a question behind it."""

    encoded: EncodedInputs
    ids: Tensor
    """int64 [S], of the prompt before its placeholder was made many."""
    clip: Clip
    """The frames, as the processor got them."""

    def question(self) -> Tensor:
        """[1, E], for compressors that look at it."""
        return self.encoded.question()

    def asked(self, ids: Tensor) -> SeenVideo | None:
        """The same clip with another question; None: its prompt differs in more than text behind the video.

        Args:
            ids: int64 [S'], of the new prompt, as ``self.ids``.
        """
        if torch.equal(ids, self.ids):
            return self
        least = min(len(ids), len(self.ids)) - 1  # so that both have an end
        differs = (ids[:least] != self.ids[:least]).nonzero()
        shared = int(differs[0, 0]) if len(differs) else least
        tail, width = len(self.ids) - shared, self.encoded.prompt.input_ids.shape[1]
        whole = self.encoded.prompt
        old = whole.input_ids[0, width - tail :]
        new = ids[shared:].to(old.device)
        positions = whole.position_ids[..., width - tail :]
        carried = {name: values[:, width - tail :] for name, values in whole.carried.items()}
        visuals = self.encoded.visuals
        parts = [part for part in (visuals.features, visuals.fixed) if part is not None]
        behind = not any(bool(part.placeholders[:, width - tail :].any()) for part in parts)
        plain = bool((positions.diff(dim=-1) == 1).all())  # text, which counts on
        plain &= all(bool((values == values[:, :1]).all()) for values in carried.values())
        if not behind or not plain or tail < 1 or not torch.equal(old.cpu(), self.ids[shared:]):
            return None
        counted = positions[..., :1] + torch.arange(len(new), device=positions.device)
        prompt = replace(
            whole,
            input_ids=torch.cat([whole.input_ids[:, : width - tail], new[None]], dim=1),
            attention_mask=torch.cat([whole.attention_mask[:, : width - tail], torch.ones_like(new)[None]], dim=1),
            position_ids=torch.cat([whole.position_ids[..., : width - tail], counted], dim=-1),
            carried={
                name: torch.cat([values[:, : width - tail], carried[name][:, :1].expand(-1, len(new))], dim=1)
                for name, values in whole.carried.items()
            },
        )

        def moved(part: Features | None) -> Features | None:
            if part is None:
                return None
            places = part.placeholders[:, : width - tail]
            return replace(part, placeholders=torch.cat([places, places.new_zeros(1, len(new))], dim=1))

        features = moved(visuals.features)
        assert features is not None
        visuals = replace(visuals, features=features, fixed=moved(visuals.fixed))
        return SeenVideo(replace(self.encoded, prompt=prompt, visuals=visuals), ids, self.clip)


class AnsweringModel:
    """A video MLLM and its processor; one question at a time."""

    def __init__(
        self, source: str, device: torch.device, dtype: torch.dtype | None = None, gate: Gate | None = None
    ) -> None:
        """Loads it. gate: chooses what of a clip the vision tower sees; None: all.

        Raises:
            ScoreError, OSError: as :func:`score_video.mllm.load.load_model` and
                :func:`score_video.mllm.gated.check_gate`.
        """
        self.source = source
        self._processor = load_processor(source)
        self._model = load_model(source, device, dtype)
        if gate is not None:
            check_gate(self._model, gate)
        self._gate = gate
        self._lock = threading.Lock()

    def check(self, chosen: Chosen) -> None:
        """Raises ScoreError for a policy that is for tokens of another model."""
        check_policy(self._model, chosen.compressor.method, chosen.name)

    @torch.no_grad()
    def encode(self, sampled: SampledVideo, phases: Phases) -> Made:
        """What the model makes of frames; gives them back as it sees them, of whole pixels a token."""
        clip = clip_of_video(sampled)
        with self._lock:
            seen = self._see(clip, FIRST_QUESTION, phases, self._gate)
        visuals = seen.encoded.visuals
        videos = visuals.videos
        shown = scale_to_grid(seen_frames(self._processor, clip), *videos.grid[1:])
        return Made(replace(sampled, frames=shown[: len(sampled.frames)]), videos, seen, visuals.seen)

    def _see(self, clip: Clip, question: str, phases: Phases, gate: Gate | None) -> SeenVideo:
        """The whole way, through the processor and the vision tower."""
        text = chat_text(self._processor, question)
        encoded = see_clip(self._model, self._processor, clip, text, phases, gate)
        if encoded is None:
            raise ScoreError(f"{self.source}: its processor put no video into the prompt")
        return SeenVideo(encoded, chat_ids(self._processor, text), clip)

    def _see_all(self, video: Encoded) -> tuple[SeenVideo, Mapping[str, float]]:
        """What a tower makes of a clip that has seen all of it, and how long that took; once for each clip."""
        if self._gate is None:
            return video.extra, video.milliseconds
        if video.whole is None:
            phases = Phases()
            seen = self._see(video.extra.clip, FIRST_QUESTION, phases, None)
            video.whole = seen, {"decode": video.milliseconds["decode"], **phases.milliseconds}
        return video.whole

    def _asked(self, seen: SeenVideo, question: str, gate: Gate | None) -> tuple[SeenVideo, Mapping[str, float]]:
        """A clip that was seen with another question behind it, and how long that took."""
        phases = Phases()
        with phases("prompt"):
            asked = seen.asked(chat_ids(self._processor, chat_text(self._processor, question)))
        if asked is None:
            asked = self._see(seen.clip, question, phases, gate)
        return asked, phases.milliseconds

    def check_question(self, question: str) -> str:
        """The question without space around it. Raises ScoreError for none, and for one that is too long."""
        question = question.encode(errors="replace").decode().strip()  # JSON may hold halves of characters
        if not question:
            raise ScoreError("question must not be empty")
        if len(question) > MOST_CHARACTERS:
            raise ScoreError(f"question must have at most {MOST_CHARACTERS} characters, got {len(question)}")
        return question

    @torch.no_grad()
    def ask(
        self,
        video: Encoded,
        chosen: Chosen,
        retention: float,
        question: str,
        emit: Emit,
        stopped: Callable[[], bool] = lambda: False,
        *,
        max_new_tokens: int = 64,
    ) -> None:
        """Answers greedily, from the tokens that are kept and then from all of them.

        Args:
            video: what :meth:`encode` made of a clip.
            chosen, retention: what keeps tokens, and which fraction.
            question: text that :meth:`check_question` returned.
            emit: is given ``{"which": "kept" or "all", "text": piece}`` as words come, and once an answer is whole
                ``{"which": ..., "done": numbers}``.
            stopped: whether nobody listens any more; asked at each token.
        """
        if not isinstance(video.extra, SeenVideo):
            raise ScoreError("this clip was not seen by a model")
        max_new_tokens = min(max(1, max_new_tokens), MOST_NEW_TOKENS)
        with self._lock:
            seen, prompt = self._asked(video.extra, question, self._gate)
            start = time.perf_counter()
            if chosen.compressor.needs_question:
                selected = seen.encoded.select(replace(chosen.compressor, retention=retention))
            else:
                selected = selection_of(video.chooser(chosen).at(retention), video.videos)
            inputs = seen.encoded.compress(selected)
            synchronize(self._model.device)
            choosing = (time.perf_counter() - start) * 1000
            own = {**prompt, "compression": choosing}
            self._answer("kept", inputs, video.milliseconds, own, emit, stopped, max_new_tokens)
            if stopped():
                return
            whole, once = self._see_all(video)
            if whole is not video.extra:
                seen, prompt = self._asked(whole, question, None)
            everything = torch.arange(len(video.videos.tokens), device=video.videos.tokens.device)
            inputs = seen.encoded.compress(Selection(everything, video.videos.lengths))
            self._answer("all", inputs, once, prompt, emit, stopped, max_new_tokens)

    def _answer(
        self,
        which: str,
        inputs: CompressedInputs,
        once: Mapping[str, float],
        phases: Mapping[str, float],
        emit: Emit,
        stopped: Callable[[], bool],
        max_new_tokens: int,
    ) -> None:
        clock = FirstToken()
        streamer = Streamer(self._processor.tokenizer, lambda piece: emit({"which": which, "text": piece}))
        start = time.perf_counter()
        output = self._model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=LogitsProcessorList([clock]),
            stopping_criteria=StoppingCriteriaList([Stop(stopped)]),
            streamer=streamer,
        )
        end = time.perf_counter()
        assert inputs.selected is not None
        prompt_tokens, new = inputs["attention_mask"].shape[1], output.shape[1] - inputs.prompt_length
        per_token = cache_bytes_per_token(self._model)
        bars = [{"name": name, "milliseconds": round(ms, 2), "once": True} for name, ms in once.items()]
        own = {**phases, "prefill": (clock.at - start) * 1000}
        bars += [{"name": name, "milliseconds": round(ms, 2), "once": False} for name, ms in own.items()]
        done = {
            "visual": len(inputs.selected.index),
            "prompt": prompt_tokens,
            "new": new,
            "bars": bars,
            "perSecond": round((new - 1) / (end - clock.at), 1) if new > 1 else None,
            "cacheBytes": None if per_token is None else per_token * prompt_tokens,
        }
        emit({"which": which, "done": done})


def cache_bytes_per_token(model: Any) -> int | None:
    """What keys and values of one token take in all layers; None where the config does not tell."""
    config = model.config.get_text_config()
    layers, heads = (getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    if not layers or not heads:
        return None
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    size: int = 2 * layers * shared * width * model.dtype.itemsize
    return size
