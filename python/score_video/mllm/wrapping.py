"""A model whose ``generate()`` and forward pass compress by themselves, until it is unwrapped.

``compressor.wrap(model)`` replaces two attributes of one model object, ``generate`` and ``forward``, and nothing of its
class or of the modules in it: what its processor made goes in, what the stock model returns comes out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.mllm.adapter import VisualLayout, find_adapter
from score_video.mllm.caches import CACHES, cached_length, given_cache
from score_video.mllm.compress import CompressedInputs, encode_inputs, gate_of
from score_video.mllm.first_pass import first_pass, inner_model
from score_video.mllm.later_turn import FirstTurn
from score_video.mllm.method_patch import MethodPatch, frame_not_compiled, not_compiled, parameter_names
from score_video.mllm.pixels import NORMALISATION
from score_video.mllm.whole_prompt import WholePrompt
from score_video.packed import Selector
from score_video.progress import Phases, synchronize

_PATCHED = ("generate", "forward")
_PROMPT = ("input_ids", "attention_mask", "labels")


def wrap(model: Any, selector: Selector) -> Wrapping:
    """Makes a model compress the videos of its prompts by itself.

    Afterwards ``model.generate(**inputs)`` and ``model(**inputs)`` take what the processor made and return what they
    always do: ids that begin with the whole prompt, logits with a row for each of its tokens. What has no video goes to
    the stock model as it is. Both take ``visual_layout`` too (:func:`~score_video.mllm.encode_inputs`).

    Args:
        model: one of :func:`~score_video.mllm.supported_models`, also as peft, a quantiser, accelerate (``device_map``)
            or ``torch.compile`` made another of it: the object that will be called.
        selector: decides what is kept: a :class:`score_video.Compressor` or an object of your own.

    Returns:
        what undoes it: ``with wrap(model, selector): ...``, or ``unwrap()``.

    Raises:
        TypeError: the model is not supported, or ``selector`` has no ``select``.
        ScoreError: the model, or one inside of it, is wrapped already.
    """
    return Wrapping(model, selector)


class Wrapping:
    """What :func:`wrap` returns: ends it, and tells of the latest call.

    Calls may come from any thread, and wait for each other: the model itself remembers its latest prompt
    (``rope_deltas``), and so does this.

    Attributes:
        model: what is wrapped.
        selector: decides what is kept. May be replaced, by a compressor of another retention, say.
        latest: what the model got at the latest call that began a conversation; None before, and where there was no
            video in it. Holds the video's features; set it to None to free them.
        milliseconds: how long its phases took, "vision tower", "compression" and, of ``generate``, "generate".
    """

    def __init__(self, model: Any, selector: Selector) -> None:
        """As :func:`wrap`."""
        if not callable(getattr(selector, "select", None)):
            raise TypeError(f"selector must have a method select (a Compressor has), got {type(selector).__name__}")
        self._adapter = find_adapter(model)
        if any(isinstance(module.__dict__.get(name), MethodPatch) for module in model.modules() for name in _PATCHED):
            raise ScoreError("model must not be wrapped already, which it is: unwrap() that first")
        self.model = model
        self.selector = selector
        self._begin()
        self._patches = {
            "generate": MethodPatch(model.generate, self._generate, self._inside, parameter_names(model, "generate")),
            "forward": MethodPatch(model.forward, self._forward, self._inside, parameter_names(model, "forward")),
        }
        self._before = {name: model.__dict__[name] for name in _PATCHED if name in model.__dict__}  # accelerate's
        model.__dict__.update(self._patches)

    def _begin(self) -> None:
        """No call yet."""
        self.latest: CompressedInputs | None = None
        self.milliseconds: dict[str, float] = {}
        self._one_call = threading.Lock()
        self._busy: set[int] = set()  # the thread that is inside of a call
        self._turns: WeakKeyDictionary[Any, FirstTurn] = WeakKeyDictionary()  # by cache

    def __getstate__(self) -> dict[str, Any]:
        """What a copy of a wrapped model has, or a file: nothing of its calls."""
        calls = {"latest", "milliseconds", "_one_call", "_busy", "_turns"}
        return {name: value for name, value in self.__dict__.items() if name not in calls}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def retention(self) -> float | None:
        """Which fraction of the latest call's visual tokens was kept; None where there is no such call."""
        if self.latest is None or self.latest.selected is None or self.latest.videos is None:
            return None
        return len(self.latest.selected.index) / len(self.latest.videos.tokens)

    @property
    def kept(self) -> list[Tensor]:
        """:attr:`CompressedInputs.kept` of the latest call."""
        return [] if self.latest is None else self.latest.kept

    def unwrap(self) -> None:
        """The model is as it was. Once more does nothing.

        Raises:
            ScoreError: something else was put over the model's ``generate`` or ``forward`` since.
        """
        if not self._patches:
            return
        attributes = self.model.__dict__
        if over := [name for name, patch in self._patches.items() if attributes.get(name) is not patch]:
            raise ScoreError(f"model.{over[0]} must be as wrap() left it, but was replaced since: undo that first")
        for name in _PATCHED:
            del attributes[name]
        attributes.update(self._before)
        self._patches = {}

    def __enter__(self) -> Wrapping:
        """Raises ScoreError: it was unwrapped, and a block would compress nothing."""
        if not self._patches:
            raise ScoreError("model must be wrapped anew, with wrap(): this wrapping was unwrapped")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unwrap()

    # --- generate

    @frame_not_compiled
    def _generate(self, original: Callable[..., Any], given: dict[str, Any], layout: VisualLayout | None) -> Any:
        if given.get("inputs") is not None:
            given["input_ids"] = given.pop("inputs")
        ids, cache = given.get("input_ids"), given_cache(given)
        if (
            isinstance(ids, Tensor)
            and cache is not None
            and (turn := self._turns.get(cache)) is not None
            and cached_length(cache)
        ):
            changed, prompt = turn.rows(len(ids)).later_inputs(given, (*self._adapter.consumed, NORMALISATION))
            output = self._original_on(prompt, original, changed)
            self._remember(output, turn)
            return output
        with torch.no_grad():
            compressed = self._compress(given, layout)
        if compressed is None:
            return original(**_without_video(given))
        assert isinstance(ids, Tensor)
        turn = FirstTurn.of(ids, given.get("attention_mask"), compressed)
        # generate gets ids, which it shows to criteria, processors, streamers and assistants; embeddings come in later
        arguments = {**compressed, **self._options(given), "input_ids": turn.shorter}
        embeds = arguments.pop("inputs_embeds", None)
        phases = self._phases()
        with phases("generate"), first_pass(inner_model(self.model), embeds, self._adapter.gaps):
            output = self._original_on(WholePrompt(ids, turn.shorter), original, arguments)
        self.milliseconds |= phases.milliseconds
        self._remember(output, turn, cache)
        return output

    @frame_not_compiled
    def _original_on(self, prompt: WholePrompt, original: Callable[..., Any], given: Mapping[str, Any]) -> Any:
        """The stock ``generate`` on shorter prompts; what it returns begins with the whole ones."""
        defaults = (given.get("generation_config"), getattr(self.model, "generation_config", None))
        output = original(**prompt.options(given, defaults))
        if isinstance(output, Tensor):
            return prompt.restore(output)
        output["sequences"] = prompt.restore(output.sequences)
        return output

    # --- a forward pass

    @frame_not_compiled
    def _forward(self, original: Callable[..., Any], given: dict[str, Any], layout: VisualLayout | None) -> Any:
        cache = given_cache(given)
        if (turn := self._turn_of(cache)) is not None:
            return original(**turn.later_step(given))
        compressed = self._compress(given, layout)
        if compressed is None:
            return original(**_without_video(given))
        turn, last, options = self._options_of_forward(given, compressed)
        as_tuple = given.get("return_dict") is False
        output = original(**options)
        self._remember(output, turn, cache)
        output["logits"] = self._whole_logits(turn, last, options.get("logits_to_keep"), output.logits)
        return output.to_tuple() if as_tuple else output

    @not_compiled
    def _options_of_forward(
        self, given: Mapping[str, Any], compressed: CompressedInputs
    ) -> tuple[FirstTurn, int, dict[str, Any]]:
        """The turn; how many places at the end are asked for, 0 for all; and the stock model's arguments."""
        turn = FirstTurn.of(given["input_ids"], given.get("attention_mask"), compressed)
        options = {**compressed, **self._options(given), "return_dict": True}
        if last := given.get("logits_to_keep") or 0:
            options["logits_to_keep"] = turn.shorter.shape[1] - int(turn.columns_of_logits(last).min())
        return turn, last, options

    @not_compiled
    def _whole_logits(self, turn: FirstTurn, last: int, asked: int | None, logits: Tensor) -> Tensor:
        """Logits of the shorter prompts, of their last ``asked`` places or of all, as those of the whole prompts."""
        width = turn.shorter.shape[1]
        heeded = asked is not None and logits.shape[1] == asked  # some families always give all
        columns = turn.columns_of_logits(last if heeded else 0) - (width - logits.shape[1])  # [B, N]
        return logits.gather(1, columns[..., None].expand(-1, -1, logits.shape[-1]))

    # --- both

    @not_compiled
    def _compress(self, given: Mapping[str, Any], layout: VisualLayout | None) -> CompressedInputs | None:
        """The model's inputs in ``given`` with the videos compressed, without options; None: there is none."""
        self.latest, self.milliseconds, phases = None, {}, self._phases()
        pictures = set(self._adapter.consumed) - {"mm_token_type_ids"}
        if not any(given.get(name) is not None for name in pictures):
            return None  # text, steps of decoding
        if given.get("input_ids") is None and given.get("inputs_embeds") is not None:
            raise ScoreError(
                "input_ids must be given beside pictures, in place of inputs_embeds: they tell where a video is"
            )
        inputs = {name: value for name, value in given.items() if not self._is_option(name, value)}
        with phases("vision tower"):
            encoded = encode_inputs(self.model, inputs, visual_layout=layout, gate=gate_of(self.selector))
        if encoded is None:
            return None
        with phases("compression"):
            compressed = encoded.compress(encoded.select(self.selector))
        self.latest, self.milliseconds = compressed, phases.milliseconds
        return compressed

    def _turn_of(self, cache: Any) -> FirstTurn | None:
        """What a cache begins with; None: it is of no compressed prompt, or was emptied."""
        return self._turns.get(cache) if cached_length(cache) else None

    def _is_option(self, name: str, value: Any) -> bool:
        """Whether an argument tells how to run; an empty cache does. Others are what the processor made."""
        if name in CACHES:
            return not cached_length(value)
        return not isinstance(value, Tensor) and name not in (*_PROMPT, *self._adapter.consumed)

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if self._is_option(name, value)}

    @not_compiled
    def _remember(self, output: Any, turn: FirstTurn, cache: Any = None) -> None:
        """So that later turns on the cache in ``output``, or on ``cache``, are known for what they are."""
        for name in CACHES:
            if not isinstance(output, (Tensor, tuple)) and output.get(name) is not None:
                self._turns[output[name]] = turn
        if cache is not None:
            self._turns[cache] = turn

    def _phases(self) -> Phases:
        return Phases(None, lambda: synchronize(self.model.device))

    @contextmanager
    def _inside(self) -> Iterator[bool]:
        """Whether this thread is inside of a call already: then whatever the stock model calls is the stock's."""
        me = threading.get_ident()
        if me in self._busy:
            yield True
            return
        with self._one_call:
            self._busy.add(me)
            try:
                yield False
            finally:
                self._busy.discard(me)


def _without_video(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the stock model takes where no video is shown: nothing that says how one is normalised."""
    return {name: value for name, value in given.items() if name != NORMALISATION}
