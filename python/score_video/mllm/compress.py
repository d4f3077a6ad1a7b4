"""Compresses the videos in a processor's output: the stock model then gets shorter prompts, and is not changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import score_ext
from score_video.before_tower import Gate, Seen
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.mllm.adapter import Adapter, Features, VisualLayout, Visuals, find_adapter
from score_video.mllm.gated import check_gate
from score_video.mllm.pixels import NORMALISATION, check_normalisation, with_floats
from score_video.mllm.prompt import IGNORED, Prompt, Shortening, read_prompt
from score_video.mllm.registry import FAMILIES
from score_video.packed import PackedVideos, Selection, Selector, check_selection, needs_question
from score_video.renamed import renamed_arguments


class CompressedInputs(Mapping[str, Any]):
    """Arguments for the stock model, ``model.generate(**inputs)`` or ``model(**inputs)``, any number of times.

    Positions are those of the whole prompt, counted so that the last token's is its number in the shorter prompt: what
    follows on the cache, in the answer and in later turns, is at the right distance (docs/models.md, "The next turn").

    Attributes:
        videos: what was there to choose from, V videos in the order of the prompts; None: none, nothing was changed.
        selected: which rows of ``videos`` are kept, and how many of each.
        places: bool [B, S], which places of the whole prompts are kept (padding is not); None: nothing was changed.
        prompt_length: how many of the tokens that ``generate`` returns are the prompt's; 0 for families that take
            embeddings, where it returns the new ones alone.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        videos: PackedVideos | None = None,
        selected: Selection | None = None,
        before_use: Callable[[], None] | None = None,
        places: Tensor | None = None,
    ) -> None:
        """Made by :func:`compress_inputs` and :meth:`EncodedInputs.compress`.

        ``before_use`` is called each time the arguments are unpacked.
        """
        self._arguments = dict(arguments)
        self._before_use = before_use
        self.videos = videos
        self.selected = selected
        self.places = places
        ids = self._arguments.get("input_ids")
        self.prompt_length = 0 if ids is None else ids.shape[1]

    def __getitem__(self, name: str) -> Any:
        value = self._arguments[name]
        if name == "position_ids" and self._before_use is not None:  # another prompt may have come in between
            self._before_use()
        if name == "mm_encoder_outputs":  # generate() changes it in place: each use gets one of its own
            return {modality: type(output)(**output) for modality, output in value.items()}
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)

    @property
    def kept(self) -> list[Tensor]:
        """For each video int64 [k], ascending: the tokens of it that are kept, counted from its first."""
        if self.videos is None or self.selected is None:
            return []
        pieces = self.selected.index.split(self.selected.keep.tolist())  # type: ignore[no-untyped-call]
        return [piece - first for piece, first in zip(pieces, self.videos.cu_seqlens[:-1].long(), strict=True)]


@dataclass(frozen=True)
class EncodedInputs:
    """A processor's output after the vision side, of which any number of selections can be made.

    Attributes:
        model, adapter: the model that these prompts are for, and what is known of its family.
        prompt: the whole prompts, with the stock model's positions.
        visuals: the features of their pictures.
        others: inputs that are handed on as they are.
    """

    model: Any
    adapter: Adapter
    prompt: Prompt
    visuals: Visuals
    others: Mapping[str, Any]

    def question(self) -> Tensor:
        """float32 [V, D]: for each video the mean embedding of the text in its prompt (our reading)."""
        visual = self.visuals.features.placeholders
        if self.visuals.fixed is not None:
            visual = visual | self.visuals.fixed.placeholders
        text = (self.prompt.attention_mask.bool() & ~visual).float()  # [B, S]
        embeds = self.model.get_input_embeddings()(self.prompt.input_ids).float()
        mean: Tensor = (text[:, None] @ embeds)[:, 0] / text.sum(1, keepdim=True).clamp(min=1)
        return mean[self.visuals.owner]

    def select(self, selector: Selector) -> Selection:
        """What a selector keeps of the videos; it is given the question if it needs it (:class:`Selector`).

        Raises:
            ScoreError: something was chosen before the tower, and the selector is no compressor.
        """
        question = self.question() if needs_question(selector) else None
        return select(selector, self.visuals.videos, self.visuals.seen, question)

    def compress(self, selected: Selection) -> CompressedInputs:
        """Prompts with the selected tokens alone.

        Args:
            selected: rows of ``visuals.videos``, and how many of them are each video's.

        Raises:
            ValueError: ``selected`` is not ascending rows of the videos, miscounts them, has some that were not chosen
                before the tower, or a dropped place has a label.
        """
        prompt, features, fixed = self.prompt, self.visuals.features, self.visuals.fixed
        check_selection(selected, self.visuals.videos)
        if (seen := self.visuals.seen) is not None and not torch.isin(selected.index, seen.kept.index).all():
            raise ScoreError("selected.index must be of tokens that were chosen before the vision tower")
        chosen = features.placeholders.new_zeros(len(features.rows)).index_fill_(0, selected.index, True)  # [L]
        kept = (prompt.attention_mask.bool() & ~features.placeholders).masked_scatter_(features.placeholders, chosen)
        if prompt.labels is not None and (prompt.labels[~kept] != IGNORED).any():
            raise ScoreError(f"inputs['labels'] must be {IGNORED} at padding and at placeholders of videos")
        rows, *deepstack = (score_ext.gather(part, selected.index) for part in (features.rows, *features.deepstack))
        videos = Features(rows, features.placeholders, tuple(deepstack))
        arguments, before_use = shorten_prompts(self.model, self.adapter, prompt, kept, videos, fixed)
        return CompressedInputs({**self.others, **arguments}, self.visuals.videos, selected, before_use, kept)


def select(selector: Selector, videos: PackedVideos, seen: Seen | None, question: Tensor | None) -> Selection:
    """What a selector keeps of videos, of which a tower has seen some tokens; None: all.

    Raises:
        ScoreError: it has seen some, and the selector is no compressor.
    """
    if seen is None:
        return selector.select(videos, question)
    if not isinstance(selector, Compressor):
        raise ScoreError(
            f"selector must be a Compressor where something is chosen before the tower, got {type(selector).__name__}"
        )
    return selector.select_seen(videos, seen, question)


def gate_of(selector: Selector) -> Gate | None:
    """What a selector chooses before the tower with; None: it does not."""
    return selector.gate if isinstance(selector, Compressor) else None


def shorten_prompts(
    model: Any, adapter: Adapter, prompt: Prompt, kept: Tensor, videos: Features, fixed: Features | None
) -> tuple[dict[str, Any], Callable[[], None] | None]:
    """The stock model's arguments for prompts of which only some places are kept.

    Args:
        prompt: whole, B prompts of at most S tokens.
        kept: bool [B, S].
        videos: the rows of the kept places of videos, and all of their places in the whole prompts, kept or not.
        fixed: what goes in unabridged, with its places in the whole prompts; or None.

    Returns:
        The arguments; and what is to be called before they are used, or None.
    """
    masked = adapter.flash_by_mask and len(kept) == 1
    masked = masked and "flash" in str(model.config.get_text_config()._attn_implementation)
    shortening = Shortening(kept, padding=int(masked))  # a masked column, so that generate() keeps the mask
    shorter = prompt.shorten(shortening, _pad_token_id(model))
    before_use = adapter.before_use(model, prompt, shorter)
    shorter = replace(shorter, position_ids=adapter.finish_positions(shorter))
    parts = [
        None if part is None else replace(part, placeholders=shortening(part.placeholders, False))
        for part in (videos, fixed)
    ]
    arguments = {
        "attention_mask": shorter.attention_mask,
        "position_ids": shorter.position_ids,
        **({} if shorter.labels is None else {"labels": shorter.labels}),
        **shorter.carried,
        **adapter.hand_over(model, shorter.input_ids, parts),
    }
    return arguments, before_use


@renamed_arguments(pictures="visual_layout")
def encode_inputs(
    model: Any, inputs: Mapping[str, Any], *, visual_layout: VisualLayout | None = None, gate: Gate | None = None
) -> EncodedInputs | None:
    """Runs a model's vision side on a processor's output.

    Args:
        model: one of :func:`~score_video.mllm.supported_models`, as transformers loads it; wrapped by peft or
            quantised it is as good.
        inputs: what its processor returned, as tensors, on the model's device; ``labels`` may be with them. Those of
            :func:`score_video.mllm.conversation.model_inputs` take less time and memory with a gate.
        visual_layout: for each prompt what it shows, ``[[("image", 1), ("video", 8)], ...]`` with the number of runs
            of placeholders of each, for families whose processors do not tell images and frames apart (InternVL,
            SmolVLM). None: the text in front of each tells, read with the tokenizer beside the model. Or with the
            number of chunks or frames of each video, for families whose inputs do not say which belong together
            (Kimi-K2.5, MiniMax-M3, MiniCPM). None: those that follow each other with little between them.
        gate: chooses what of the videos the vision tower sees (``Compressor.gate``); images it sees whole. None: all.

    Returns:
        what :meth:`EncodedInputs.compress` goes on from; None where there is no video.

    Raises:
        TypeError: a model that is not supported (lists those that are), or inputs that are no tensors.
        ValueError: inputs that contradict each other, or with which compression could not be exact; says why. Or a gate
            before a tower that cannot be run in part.
    """
    adapter = find_adapter(model)
    if gate is not None:
        check_gate(model, gate)
    # the cache is called past_key_values up to transformers 5.23
    if any(inputs.get(name) is not None for name in ("position_ids", "past_key_values", "cache")):
        raise ScoreError("inputs must be a prompt from its beginning, without position_ids, past_key_values or cache")
    if visual_layout is not None and not adapter.mixes_pictures:
        raise ScoreError(
            f"visual_layout must be None for {model.config.model_type}: its inputs tell images from videos"
        )
    check_normalisation(inputs)
    if gate is None:  # behind a gate only what it lets through is normalised
        inputs = with_floats(inputs, model.dtype)
    prompt = read_prompt(inputs)
    visuals = adapter.encode(model, inputs, prompt, visual_layout, gate)
    if visuals is None:
        return None
    config = model.config.get_text_config()
    _check_attention(model, config)
    _check_rotation(model, config, prompt)
    last = prompt.attention_mask.shape[1] - 1 - prompt.attention_mask.flip(1).argmax(1, keepdim=True)  # [B, 1]
    if visuals.features.placeholders.gather(1, last).any():
        raise ScoreError("inputs['input_ids'] must not end with a video: the answer's positions begin after a text's")
    carried = {name: inputs[name] for name in adapter.carried if inputs.get(name) is not None}
    if odd := [name for name, value in carried.items() if value.shape != prompt.input_ids.shape]:
        raise ScoreError(
            f"inputs[{odd[0]!r}] must have the shape {list(prompt.input_ids.shape)} of input_ids, got "
            f"{list(carried[odd[0]].shape)}"
        )
    prompt = replace(prompt, position_ids=adapter.position_ids(model, inputs, prompt), carried=carried)
    read = {"input_ids", "attention_mask", "labels", NORMALISATION, *adapter.consumed, *adapter.carried}
    others = {name: value for name, value in inputs.items() if name not in read and value is not None}
    for name, value in others.items():
        if isinstance(value, Tensor) and value.shape[:2] == prompt.input_ids.shape:
            raise ScoreError(f"inputs must be without {name!r}: it has a value for each token and is not known here")
    return EncodedInputs(model, adapter, prompt, visuals, others)


@renamed_arguments(pictures="visual_layout", compressor="selector")
def compress_inputs(
    model: Any, inputs: Mapping[str, Any], selector: Selector, *, visual_layout: VisualLayout | None = None
) -> CompressedInputs:
    """Shortens a batch of prompts to the visual tokens that a selector keeps.

    All videos of the batch are compressed in one call. What is kept keeps its position; images and text stay whole.
    The answer is that of the stock model with the dropped tokens masked out; with a compressor's ``before_tower`` the
    vision tower sees a part of the videos, and its features differ (docs/before_the_tower.md).

    Args:
        model, inputs, visual_layout: as for :func:`encode_inputs`.
        selector: decides what is kept: a :class:`score_video.Compressor`, or any object with its method ``select``
            (:class:`score_video.packed.Selector`).

    Raises:
        TypeError, ValueError: as :func:`encode_inputs`, :meth:`EncodedInputs.compress` and the selector.
    """
    encoded = encode_inputs(model, inputs, visual_layout=visual_layout, gate=gate_of(selector))
    return CompressedInputs(inputs) if encoded is None else encoded.compress(encoded.select(selector))


def _check_attention(model: Any, config: Any) -> None:
    """Raises ValueError where the model's attention goes by something else than positions and the mask."""
    if FAMILIES[model.config.model_type].exactness == "shortened":
        return
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = ["full_attention" if getattr(config, "sliding_window", None) is None else "sliding_attention"]
    if odd := sorted(set(kinds) - {"full_attention"}):
        raise ScoreError(
            f"model must have layers of full attention only, got {odd[0]!r}: it goes by how many tokens lie between "
            "two, and changes where tokens are dropped"
        )


def _check_rotation(model: Any, config: Any, prompt: Prompt) -> None:
    """Raises ValueError where the model's rotary frequencies change with how long the whole prompts are."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind = str(rope.get("rope_type"))
    if "dynamic" not in kind and kind != "longrope":
        return
    longest = int(prompt.attention_mask.sum(1).max())
    limit = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    if longest > limit:
        raise ScoreError(
            f"inputs['input_ids'] must have at most {limit} tokens in a prompt, got {longest}: beyond, the "
            f"{kind!r} rotary positions of {model.config.model_type} change with the length of the whole prompt"
        )


def _pad_token_id(model: Any) -> int:
    """A token for padding, which is masked: any that is in the vocabulary and no placeholder."""
    for config in (lambda: getattr(model, "generation_config", None), model.config.get_text_config):
        if isinstance(token := getattr(config(), "pad_token_id", None), int) and token >= 0:
            return token
    return 0
