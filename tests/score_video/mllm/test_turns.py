"""What comes after a compressed prompt: later turns on its cache, and what other prompts make of the same model.

The oracle is the stock model on the whole prompts with the dropped tokens masked out (masked.py), turn by turn; the
positions of each turn are those that the stock model's own ``generate`` gives on the whole prompts, unmasked.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from masked import Pair, compress, difference
from tiny import Batch, Family, Prompts
from tiny_families import MASKED
from torch import Tensor

from score_video.compressor import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import compress_inputs

TOLERANCE = 1e-5
ANSWER = 3  # tokens of an answer; models of tiny.py never end one earlier
VIDEO = ("video", 4)
LONG = ("video", 9)  # its last frames come later than the text behind it, where time is a row of positions
BATCHES: dict[str, Prompts] = {
    "one": [[5, VIDEO, 6]],
    "long": [[5, LONG, 6]],
    "padded": [[5, VIDEO, 6], [2, VIDEO, 3, VIDEO, 4]],
}

FAMILIES = MASKED
made = functools.cache(lambda name: FAMILIES[name]())


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    with torch.no_grad():
        yield made(request.param)


def cache_name(model: Any) -> str:
    """The argument for a cache: ``cache`` from transformers 5.24 on, ``past_key_values`` before."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@dataclass
class Talk:
    """A conversation with a model on one cache.

    Attributes:
        inputs: of the first turn.
        ids, mask: of all tokens so far, int64 [B, S]; any ids where the prompt's are not known.
        cache: of all of them but the last.
    """

    model: Any
    inputs: Mapping[str, Any]
    ids: Tensor | None = None
    mask: Tensor | None = None
    cache: Any = None

    def turn(
        self, text: Tensor | None = None, *, short: bool = False, ended: Sequence[int] = (), **options: Any
    ) -> tuple[Tensor, ...]:
        """The logits of an answer.

        Args:
            text: [B, N], what is said first.
            short: without the ids that are in the cache.
            ended: how many tokens at the end of each answer only fill it up.
        """
        if text is None:
            given: dict[str, Any] = dict(self.inputs)
        else:
            assert self.ids is not None and self.mask is not None
            ids = torch.cat([self.ids, text], 1)
            self.mask = torch.cat([self.mask, torch.ones_like(text)], 1)
            if short:
                ids = ids[:, self.ids.shape[1] - 1 :]
            given = {"input_ids": ids, "attention_mask": self.mask, cache_name(self.model): self.cache}
        answer = self.model.generate(
            **{"max_new_tokens": ANSWER, "do_sample": False, **given, **options},
            output_logits=True,
            return_dict_in_generate=True,
        )
        if text is None:
            mask = given["attention_mask"]
            copies = len(answer.sequences) // len(mask)
            self.mask = mask.repeat_interleave(copies, 0)
            self.ids = given["input_ids"].repeat_interleave(copies, 0) if "input_ids" in given else self.mask * 7
        else:
            self.ids = torch.cat([self.ids, text], 1)  # type: ignore[list-item]
        new = answer.sequences[:, -ANSWER:]
        self.ids = torch.cat([self.ids, new], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(new)], 1)  # type: ignore[list-item]
        for row, count in enumerate(ended):
            self.mask[row, self.mask.shape[1] - count :] = 0
        self.cache = getattr(answer, cache_name(self.model))
        return answer.logits  # type: ignore[no-any-return]


def texts(rows: int, turns: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return [torch.randint(20, 90, (rows, 3 + turn), generator=generator) for turn in range(turns)]


def positions_of_turns(family: Family, batch: Batch, said: Sequence[Tensor], ended: Sequence[int] = ()) -> list[Tensor]:
    """What the stock model's decoder is told on the whole prompts, nothing masked, at the beginning of later turns."""
    seen: list[Tensor] = []
    hook = family.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    try:
        talk, found = Talk(family.model, batch.inputs()), []
        talk.turn(ended=ended)
        for text in said:
            seen.clear()
            talk.turn(text)
            found.append(seen[0])
    finally:
        hook.remove()
    return found


def third(family: Family, prompts: Prompts) -> tuple[Batch, Pair]:
    batch = family.batch(prompts)
    return batch, compress(family, batch, Compressor(RandomMethod(3), 0.3))


# --- later turns


@pytest.mark.parametrize("short", [False, True], ids=["all ids", "new ids"])
@pytest.mark.parametrize("name", BATCHES)
def test_later_turns_by_generate(family: Family, name: str, short: bool) -> None:
    batch, pair = third(family, BATCHES[name])
    said = texts(len(batch.ids), 2)
    positions = positions_of_turns(family, batch, said)
    ours, masked = Talk(family.model, pair.compressed), Talk(family.model, pair.masked)
    assert difference(ours.turn(), masked.turn()) <= TOLERANCE
    for text, place in zip(said, positions, strict=True):
        wanted = masked.turn(text, position_ids=place)
        assert difference(ours.turn(text, short=short), wanted) <= TOLERANCE
    assert ours.mask is not None and masked.mask is not None
    assert ours.mask.sum() < masked.mask.shape[1] * len(batch.ids)


def test_answers_that_ended_earlier(family: Family) -> None:
    batch, pair = third(family, BATCHES["padded"])
    said, ended = texts(2, 2), (1, 0)
    positions = positions_of_turns(family, batch, said, ended)
    ours, masked = Talk(family.model, pair.compressed), Talk(family.model, pair.masked)
    assert difference(ours.turn(ended=ended), masked.turn(ended=ended)) <= TOLERANCE
    for text, place in zip(said, positions, strict=True):
        assert difference(ours.turn(text), masked.turn(text, position_ids=place)) <= TOLERANCE


def test_the_position_of_a_later_turn_matters(family: Family) -> None:
    """The oracle sees it if a second turn stands as many places too early as tokens were dropped."""
    batch, pair = third(family, BATCHES["one"])
    (text,) = texts(1, 1)
    (place,) = positions_of_turns(family, batch, [text])
    ours, masked = Talk(family.model, pair.compressed), Talk(family.model, pair.masked)
    ours.turn(), masked.turn()
    dropped = masked.mask.shape[1] - ours.mask.shape[1]  # type: ignore[union-attr]
    assert dropped > 10
    assert difference(ours.turn(text), masked.turn(text, position_ids=place - dropped)) > 1e-3


@pytest.mark.parametrize("name", BATCHES)
def test_later_turns_by_hand(family: Family, name: str) -> None:
    """Forward passes with positions counted by the mask, as for every prompt that is padded on the left."""
    batch, pair = third(family, BATCHES[name])
    logits = []
    for inputs, last in ((pair.compressed, None), (pair.masked, pair.masked["position_ids"][..., -1:])):
        output, mask = family.model(**inputs, use_cache=True), inputs["attention_mask"]
        seen = [output.logits[:, -1]]
        for text in texts(len(batch.ids), 3):
            mask = torch.cat([mask, torch.ones_like(text)], 1)
            places = (mask.cumsum(1) - 1)[:, -text.shape[1] :]
            if last is not None:
                places = last + 1 + torch.arange(text.shape[1])
                last = places[..., -1:]
            past = {cache_name(family.model): output[cache_name(family.model)]}
            output = family.model(input_ids=text, attention_mask=mask, position_ids=places, use_cache=True, **past)
            seen.append(output.logits.flatten(0, 1))
        logits.append(torch.cat(seen))
    assert difference(*logits) <= TOLERANCE


@pytest.mark.parametrize("prompts", [BATCHES["one"], [[5, LONG, 6], [5, LONG, 6]]], ids=["one", "two"])
def test_later_turns_by_hand_without_positions(family: Family, prompts: Prompts) -> None:
    """Where nothing is padded, the stock model counts on by itself; as after the whole prompts."""
    model, inputs = family.model, family.batch(prompts).inputs()
    told = {"visual_layout": family.batch(prompts).pictures} if family.told else {}
    said = texts(len(prompts), 3)

    def talk(inputs: Mapping[str, Any]) -> Tensor:
        output = model(**inputs, use_cache=True)
        logits = [output.logits[:, -1]]
        for text in said:
            output = model(input_ids=text, use_cache=True, **{cache_name(model): output[cache_name(model)]})
            logits.append(output.logits.flatten(0, 1))
        return torch.cat(logits)

    whole = talk(inputs)
    assert difference(talk(compress_inputs(model, inputs, Compressor("uniform", 1.0), **told)), whole) <= TOLERANCE
    # with fewer tokens too: the masked prompt, at the positions that the stock model has just counted
    _, pair = third(family, prompts)
    seen: list[Tensor] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("position_ids")), with_kwargs=True
    )
    try:
        talk(inputs)
    finally:
        hook.remove()
    output, mask = model(**pair.masked, use_cache=True), pair.masked["attention_mask"]
    wanted = [output.logits[:, -1]]
    for text, places in zip(said, seen[1:], strict=True):
        if places is None:  # counted inside of the decoder
            places = torch.arange(mask.shape[1], mask.shape[1] + text.shape[1])[None]
        mask = torch.cat([mask, torch.ones_like(text)], 1)
        past = {cache_name(model): output[cache_name(model)]}
        output = model(input_ids=text, attention_mask=mask, position_ids=places, use_cache=True, **past)
        wanted.append(output.logits.flatten(0, 1))
    assert difference(talk(pair.compressed), torch.cat(wanted)) <= TOLERANCE


@pytest.mark.parametrize("name", ["one", "padded"])
def test_a_later_turn_of_several_answers(family: Family, name: str) -> None:
    """Each goes on as the conversation would in which it was the only answer."""
    batch, pair = third(family, BATCHES[name])
    torch.manual_seed(0)
    several = Talk(family.model, pair.compressed)
    several.turn(num_return_sequences=2, do_sample=True)
    assert several.ids is not None
    said = texts(2 * len(batch.ids), 1)[0]
    answers = several.ids[:, -ANSWER:]
    if name == "padded" and family.model.config.model_type == "qwen2_5_vl":
        # its videos end later than the text behind them, by numbers of their own, which the stock model does not repeat
        with pytest.raises(RuntimeError, match="must match the size"):
            several.turn(said)
        return
    ours = torch.stack(several.turn(said))
    for copy in range(2):
        rows = torch.arange(len(batch.ids)) * 2 + copy
        alone = replay(family.model, pair.compressed, answers[rows])
        assert difference(ours[:, rows], torch.stack(alone.turn(said[rows]))) <= TOLERANCE


def replay(model: Any, inputs: Mapping[str, Any], answers: Tensor) -> Talk:
    """A conversation whose first answers, int64 [B, ANSWER], are given."""
    talk = Talk(model, inputs)
    width = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    talk.turn(prefix_allowed_tokens_fn=lambda row, ids: [int(answers[row, len(ids) - width])])
    return talk


# --- other prompts on the same model


@pytest.mark.parametrize("other", ["text", "compressed", "video"])
@pytest.mark.parametrize("when", ["before", "between"])
def test_other_prompts_on_the_same_model(family: Family, other: str, when: str) -> None:
    """What the model remembers of its latest prompt does not get into a conversation, nor out of it."""
    _, pair = third(family, [[5, ("video", 6), 6]])
    (said,) = texts(1, 1)
    plain = family.batch([[4, ("video", 6), 2]] if other != "text" else [[7]])
    prompt: Any = plain.inputs()
    if other == "compressed":
        prompt = compress(family, plain, Compressor(RandomMethod(3), 0.3)).compressed
    core = getattr(family.model, "model", None)
    if hasattr(core, "rope_deltas"):
        core.rope_deltas = None
    alone = torch.stack(Talk(family.model, prompt).turn())
    talk = Talk(family.model, pair.compressed)
    first = talk.turn()
    wanted = torch.stack([*first, *talk.turn(said)])

    def interrupt() -> None:
        assert difference(torch.stack(Talk(family.model, prompt).turn()), alone) <= TOLERANCE

    talk = Talk(family.model, pair.compressed)
    if when == "before":
        interrupt()
    logits = talk.turn()
    if when == "between":
        if other == "video":
            if hasattr(core, "rope_deltas"):
                pytest.skip("its stock model takes the positions of a later turn from the latest prompt it saw")
        elif family.model.config.model_type == "qwen2_5_vl":
            pytest.skip("its stock model remembers one prompt, and this one's last frame is later than its text")
        interrupt()
    assert difference(torch.stack([*logits, *talk.turn(said)]), wanted) <= TOLERANCE
    interrupt()  # nor does the conversation get into what comes after it


def test_forward_passes_on_other_prompts(family: Family) -> None:
    if family.model.config.model_type in ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"):
        pytest.skip("its stock model cannot go from a batch to embeddings of one prompt")
    prompts = [family.batch(prompt).inputs() for prompt in ([[7]], [[3, ("video", 3), 2]], [[3], [6]])]
    embeds = [family.model.get_input_embeddings()(prompts[0]["input_ids"])]
    before = [family.model(**prompt).logits for prompt in prompts]
    before += [family.model(inputs_embeds=embed).logits for embed in embeds]
    _, pair = third(family, BATCHES["one"])
    family.model.generate(**pair.compressed, max_new_tokens=2, do_sample=False)
    after = [family.model(**prompt).logits for prompt in prompts]
    family.model.generate(**pair.compressed, max_new_tokens=2, do_sample=False)
    after += [family.model(inputs_embeds=embed).logits for embed in embeds]
    for one, other in zip(before, after, strict=True):
        assert difference(other, one) <= TOLERANCE


# --- refused


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_a_prompt_that_goes_on_from_a_cache_is_not_compressed(family: Family, name: str) -> None:
    _, pair = third(family, BATCHES["one"])
    talk = Talk(family.model, pair.compressed)
    talk.turn()
    inputs = family.batch(BATCHES["one"]).inputs()
    with pytest.raises(ValueError, match="must be a prompt from its beginning, without position_ids, past_key_values"):
        compress_inputs(family.model, {**inputs, name: talk.cache}, Compressor("uniform", 0.5))
