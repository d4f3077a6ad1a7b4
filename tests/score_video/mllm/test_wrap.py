"""``compressor.wrap(model)``: calls of the stock model that compress by themselves and return what it returns.

What the model answers is compared with compressed inputs handed over by hand, which test_exactness.py compares with the
stock model; here it is about lengths, ids, arguments and what is left behind.
"""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from masked import TOLERANCE, difference
from tiny import Family, Prompts
from tiny_families import ALL
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.methods import RandomMethod
from score_video.mllm import CompressedInputs, compress_inputs
from score_video.mllm.wrapping import wrap

pytestmark = pytest.mark.usefixtures("without_gradients")

CLIP = ("video", 4)
ONE: Prompts = [[5, CLIP, 6]]
PADDED: Prompts = [[5, CLIP, 6], [2, CLIP, 3, CLIP, 4]]
THIRD = Compressor(RandomMethod(3), 0.3)
SOME = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl")  # of each way to hand features over

FAMILIES = ALL
STATEFUL = ValueError, "assisted generation is not supported with stateful models"
STOCK_REFUSES = {
    **dict.fromkeys(("glm5_next", "qwen3_5", "qwen3_5_moe", "qwen4_exp", "nemotron_h_omni"), STATEFUL),
    **dict.fromkeys(("minicpm_ocr", "minicpmv4_6", "minicpmv4_7"), STATEFUL),
    # it is not told the kind of the tokens that it guesses, and its experts want one for each token
    "ernie4_5_vl_moe": (IndexError, "The shape of the mask"),
}
"""Families whose stock model does not decode with an assistant, and what it says about a whole video."""

made = functools.cache(lambda name: FAMILIES[name]())
some = pytest.mark.parametrize("name", SOME)


@pytest.fixture(autouse=True)
def unwrapped() -> Iterator[None]:
    """No test leaves a model as it was not."""
    yield
    for name in SOME:
        assert not {"generate", "forward"} & made(name).model.__dict__.keys()


def told(family: Family, prompts: Prompts) -> dict[str, Any]:
    return {"visual_layout": family.batch(prompts).pictures} if family.told else {}


def inputs_of(family: Family, prompts: Prompts, side: str = "left") -> tuple[dict[str, Any], dict[str, Any]]:
    """The processor's output; and the same for a wrapped model, which may have to be told more."""
    inputs = family.batch(prompts).inputs(side)
    return inputs, {**inputs, **told(family, prompts)}


def by_hand(family: Family, prompts: Prompts) -> CompressedInputs:
    return compress_inputs(family.model, family.batch(prompts).inputs(), THIRD, **told(family, prompts))


def answer(family: Family, prompts: Prompts, **options: Any) -> Tensor:
    """The new tokens alone, by hand."""
    compressed = by_hand(family, prompts)
    torch.manual_seed(0)
    tokens: Tensor = family.model.generate(**compressed, **{"max_new_tokens": 5, "do_sample": False, **options})
    return tokens[:, compressed.prompt_length :]


def wrapped_answer(family: Family, prompts: Prompts, **options: Any) -> Tensor:
    """What a wrapped model returns, of which the prompt has been cut off by its length."""
    inputs, given = inputs_of(family, prompts)
    with THIRD.wrap(family.model):
        torch.manual_seed(0)
        sequences = family.model.generate(**given, **{"max_new_tokens": 5, "do_sample": False, **options})
    width = inputs["input_ids"].shape[1]
    prompt = inputs["input_ids"].repeat_interleave(len(sequences) // len(inputs["input_ids"]), 0)
    assert torch.equal(sequences[:, :width], prompt)
    return sequences[:, width:]  # type: ignore[no-any-return]


# --- generate


@pytest.mark.parametrize("prompts", [ONE, PADDED], ids=["one", "padded"])
@pytest.mark.parametrize("name", FAMILIES)
def test_generate(name: str, prompts: Prompts) -> None:
    assert torch.equal(wrapped_answer(made(name), prompts), answer(made(name), prompts))


@pytest.mark.parametrize(
    "options",
    [
        {"num_return_sequences": 3, "do_sample": True},
        {"num_beams": 3},
        {"num_beams": 2, "num_return_sequences": 2},
        {"cache_implementation": "static", "disable_compile": True},
    ],
    ids=lambda options: "-".join(options),
)
@some
def test_ways_to_generate(name: str, options: dict[str, Any]) -> None:
    assert torch.equal(wrapped_answer(made(name), PADDED, **options), answer(made(name), PADDED, **options))


@pytest.mark.parametrize("options", [{"use_cache": False}, {"prefill_chunk_size": 7}], ids=lambda o: next(iter(o)))
@some
def test_ways_that_take_ids_alone(name: str, options: dict[str, Any]) -> None:
    """Which stock generate cannot go about embeddings: here it gets ids, and the embeddings come in at the model."""
    if name.startswith("qwen") and "prefill_chunk_size" in options:
        pytest.skip("its stock model wants all features in the first chunk")
    assert torch.equal(wrapped_answer(made(name), ONE, **options), answer(made(name), ONE))


@pytest.mark.parametrize("assisted", ["by a model", "by the prompt"])
@pytest.mark.parametrize("name", FAMILIES)
def test_assisted_decoding(name: str, assisted: str) -> None:
    family = made(name)
    options: dict[str, Any] = {"prompt_lookup_num_tokens": 2}
    if assisted == "by a model":
        options = {"assistant_model": copy.deepcopy(family.model)}
    if name in STOCK_REFUSES:
        error, message = STOCK_REFUSES[name]
        with pytest.raises(error, match=message):
            family.model.generate(**family.batch(ONE).inputs(), max_new_tokens=5, do_sample=False, **options)
        with pytest.raises(error, match=message):
            wrapped_answer(family, ONE, **options)
        return
    assert torch.equal(wrapped_answer(family, ONE, **options), answer(family, ONE))


@some
def test_dictionary(name: str) -> None:
    family = made(name)
    inputs, given = inputs_of(family, PADDED)
    options = {"max_new_tokens": 4, "num_beams": 2, "return_dict_in_generate": True, "output_scores": True}
    with THIRD.wrap(family.model):
        ours = family.model.generate(**given, **options)
        scores = family.model.compute_transition_scores(ours.sequences, ours.scores, ours.beam_indices)
    compressed = by_hand(family, PADDED)
    theirs = family.model.generate(**compressed, **options)
    assert torch.equal(ours.sequences[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    new = [o.sequences[:, n:] for o, n in ((ours, inputs["input_ids"].shape[1]), (theirs, compressed.prompt_length))]
    assert torch.equal(*new)
    assert difference(ours.scores, theirs.scores) <= TOLERANCE
    assert torch.equal(
        scores, family.model.compute_transition_scores(theirs.sequences, theirs.scores, theirs.beam_indices)
    )


@some
def test_lengths_count_the_whole_prompt(name: str) -> None:
    family = made(name)
    length = inputs_of(family, ONE)[0]["input_ids"].shape[1]
    six = answer(family, ONE, max_new_tokens=6)
    for options in (
        {"max_length": length + 6},
        {"generation_config": GenerationConfig(max_length=length + 6, do_sample=False)},
        {
            "max_length": length + 9,
            "stopping_criteria": [lambda ids, scores: torch.tensor([ids.shape[1] >= length + 6])],
        },
    ):
        assert torch.equal(wrapped_answer(family, ONE, max_new_tokens=None, **options), six)
    with pytest.raises(ScoreError, match=f"max_length must be above the {length} tokens of the prompt.*got {length}"):
        wrapped_answer(family, ONE, max_length=length, max_new_tokens=None)


@some
def test_the_shortest_answer_counts_the_whole_prompt(name: str) -> None:
    family = made(name)
    length = inputs_of(family, ONE)[0]["input_ids"].shape[1]
    first = int(answer(family, ONE)[0, 0])
    assert wrapped_answer(family, ONE, eos_token_id=first).shape[1] == 1
    ours = wrapped_answer(family, ONE, eos_token_id=first, min_length=length + 3)
    assert torch.equal(ours, answer(family, ONE, eos_token_id=first, min_new_tokens=3))
    assert ours.shape[1] >= 3


class Listening(BaseStreamer):
    def __init__(self) -> None:
        self.heard: list[Tensor] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.heard.append(value)

    def end(self) -> None:
        self.ended = True


@some
def test_criteria_processors_and_streamers_see_the_whole_prompt(name: str) -> None:
    family, seen, streamer = made(name), [], Listening()
    ids = inputs_of(family, ONE)[0]["input_ids"]

    def look(given: Tensor, scores: Tensor) -> Tensor:
        seen.append(given)
        return scores

    def stop(given: Tensor, scores: Tensor, **options: Any) -> Tensor:
        seen.append(given)
        return torch.zeros(len(given), dtype=torch.bool)

    def allowed(row: int, given: Tensor) -> list[int]:
        seen.append(given[None])
        return list(range(20, 90))

    new = wrapped_answer(
        family,
        ONE,
        logits_processor=LogitsProcessorList([look]),
        stopping_criteria=StoppingCriteriaList([stop]),
        prefix_allowed_tokens_fn=allowed,
        streamer=streamer,
    )
    assert len(seen) == 3 * 5
    assert all(torch.equal(given[:, : ids.shape[1]], ids) for given in seen)
    assert torch.equal(seen[-1][:, ids.shape[1] :], new) and streamer.ended
    assert torch.equal(torch.cat([value.flatten() for value in streamer.heard]), torch.cat([ids[0], new[0]]))


def test_a_streamer_in_a_thread() -> None:
    family, streamer, found = made("qwen2_5_vl"), Listening(), []
    thread = threading.Thread(target=lambda: found.append(wrapped_answer(family, ONE, streamer=streamer)))
    thread.start()
    thread.join()
    assert torch.equal(found[0], answer(family, ONE)) and streamer.ended


@some
def test_calls_of_several_threads_wait_for_each_other(name: str) -> None:
    family = made(name)
    _, given = inputs_of(family, ONE)
    wanted, found = answer(family, ONE), []

    def call() -> None:
        found.append(family.model.generate(**given, max_new_tokens=5, do_sample=False)[:, -5:])

    with THIRD.wrap(family.model):
        threads = [threading.Thread(target=torch.no_grad()(call)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4 and all(torch.equal(tokens, wanted) for tokens in found)


# --- forward passes


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_forward(name: str, side: str) -> None:
    """Logits have the stock model's shape: at kept tokens what the shorter prompt has there."""
    family = made(name)
    inputs, given = inputs_of(family, PADDED, side)
    compressed = compress_inputs(family.model, inputs, THIRD, **told(family, PADDED))
    wanted = family.model(**compressed).logits[compressed["attention_mask"].bool()]
    stock = family.model(**inputs, logits_to_keep=3).logits  # some families always give all
    with THIRD.wrap(family.model) as wrapping:
        logits = family.model(**given).logits
        assert logits.shape[:2] == inputs["input_ids"].shape
        assert wrapping.latest is not None
        places = wrapping.latest.places
        last = family.model(**given, logits_to_keep=3).logits
        plain = family.model(**given, return_dict=False)[0]
    assert difference(logits[places], wanted) <= TOLERANCE
    assert torch.equal(plain, logits)
    assert last.shape[1] == stock.shape[1]
    assert difference(last[:, -3:], logits[:, -3:]) <= TOLERANCE
    # dropped tokens have the logits of the last kept before them
    for row, kept in zip(logits, places, strict=True):
        for place in (~kept & (kept.cumsum(0) > 0)).nonzero().flatten().tolist():
            assert torch.equal(row[place], row[place - 1])


@some
def test_loss_and_gradients(name: str) -> None:
    family = made(name)
    inputs, given = inputs_of(family, PADDED)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]
    compressed = compress_inputs(family.model, {**inputs, "labels": labels}, THIRD, **told(family, PADDED))
    wanted = family.model(**compressed).loss
    with THIRD.wrap(family.model), torch.enable_grad():
        output = family.model(**given, labels=labels)
        assert output.loss.item() == pytest.approx(wanted.item(), rel=1e-6)
        output.loss.backward()
        assert family.model.get_input_embeddings().weight.grad is not None
    family.model.zero_grad(set_to_none=True)
    # the stock loss of the logits and whole labels is the same
    flat = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert flat.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_positional_arguments() -> None:
    family = made("qwen2_5_vl")
    inputs, given = inputs_of(family, ONE)
    ids = given.pop("input_ids")
    wanted = answer(family, ONE)
    with THIRD.wrap(family.model):
        assert torch.equal(
            family.model.generate(ids, **given, max_new_tokens=5, do_sample=False)[:, ids.shape[1] :], wanted
        )
        assert torch.equal(family.model(ids, **given).logits, family.model(**inputs).logits)


# --- what has no video


@some
def test_text_and_images_are_untouched(name: str) -> None:
    family = made(name)
    for prompts in ([[5], [7]], [[5, "image", 2], [7]]):
        inputs, given = inputs_of(family, prompts)
        wanted = family.model.generate(**inputs, max_new_tokens=3, do_sample=False)
        logits = family.model(**inputs).logits
        with THIRD.wrap(family.model) as wrapping:
            assert torch.equal(family.model.generate(**given, max_new_tokens=3, do_sample=False), wanted)
            assert torch.equal(family.model(**given).logits, logits)
            assert wrapping.latest is None and wrapping.kept == [] and wrapping.retention is None


# --- later turns, written with the whole prompt's ids and mask


def cache_name(model: Any) -> str:
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@pytest.mark.parametrize("form", ["all ids", "new ids", "pictures again", "no mask"])
@pytest.mark.parametrize("prompts", [ONE, PADDED], ids=["one", "padded"])
@some
def test_later_turns_by_generate(name: str, prompts: Prompts, form: str) -> None:
    if form == "no mask" and prompts is PADDED:
        pytest.skip("what is padded needs a mask")
    check_later_turns(name, prompts, form)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in SOME])
def test_later_turns_in_every_family(name: str) -> None:
    check_later_turns(name, PADDED, "all ids")


def check_later_turns(name: str, prompts: Prompts, form: str) -> None:
    """Two turns on the cache of a wrapped model's answer, and of the answer to inputs compressed by hand."""
    family = made(name)
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    said = torch.randint(20, 90, (len(prompts), 4), generator=torch.Generator().manual_seed(0))
    cache = cache_name(family.model)

    compressed = by_hand(family, prompts)
    first = family.model.generate(**compressed, **options)
    new = first.sequences[:, compressed.prompt_length :]
    wanted, mask, past = [first.logits], compressed["attention_mask"], first
    for _ in range(2):
        mask = torch.cat([mask, torch.ones_like(new), torch.ones_like(said)], 1)
        ids = torch.cat([new[:, -1:], said], 1)
        past = family.model.generate(input_ids=ids, attention_mask=mask, **{cache: past[cache]}, **options)
        new = past.sequences[:, ids.shape[1] :]
        wanted.append(past.logits)

    inputs, given = inputs_of(family, prompts)
    with THIRD.wrap(family.model):
        output = family.model.generate(**given, **options)
        logits, mask = [output.logits], inputs["attention_mask"]
        width = inputs["input_ids"].shape[1]
        for _ in range(2):
            ids = torch.cat([output.sequences, said], 1)
            mask = torch.cat([mask, torch.ones(len(ids), ids.shape[1] - width, dtype=torch.long)], 1)
            width = ids.shape[1]
            again = {"input_ids": ids, "attention_mask": mask, cache: output[cache]}
            if form == "pictures again":
                again = {**given, **again}
                again.pop("visual_layout", None)
            if form == "new ids":
                again["input_ids"] = ids[:, -said.shape[1] - 1 :]
            if form == "no mask":
                del again["attention_mask"]
            output = family.model.generate(**again, **options)
            assert torch.equal(output.sequences[:, : again["input_ids"].shape[1]], again["input_ids"])
            output.sequences = torch.cat([ids, output.sequences[:, again["input_ids"].shape[1] :]], 1)
            logits.append(output.logits)
    for ours, theirs in zip(logits, wanted, strict=True):
        assert difference(ours, theirs) <= 1e-5


@pytest.mark.parametrize("own_cache", [False, True])
@some
def test_decoding_by_hand(name: str, own_cache: bool) -> None:
    family = made(name)
    cache = cache_name(family.model)
    compressed = by_hand(family, PADDED)
    _, given = inputs_of(family, PADDED)
    logits = []
    for wrapped, prompt in ((False, dict(compressed)), (True, given)):
        wrapping = wrap(family.model, THIRD) if wrapped else None
        past = {cache: DynamicCache()} if own_cache else {}
        output, mask = family.model(**prompt, **past, use_cache=True), prompt["attention_mask"]
        seen = [output.logits[:, -1]]
        for _ in range(3):
            token = seen[-1].argmax(-1, keepdim=True)
            mask = torch.cat([mask, torch.ones_like(token)], 1)
            places = (mask.cumsum(1) - 1)[:, -1:]
            past = past or {cache: output[cache]}
            output = family.model(input_ids=token, attention_mask=mask, position_ids=places, use_cache=True, **past)
            seen.append(output.logits[:, -1])
        logits.append(torch.stack(seen))
        if wrapping is not None:
            wrapping.unwrap()
    assert difference(*logits) <= 1e-5


def test_a_video_in_a_later_turn_is_refused() -> None:
    family = made("qwen3_vl")
    inputs, given = inputs_of(family, ONE)
    with THIRD.wrap(family.model):
        output = family.model.generate(**given, max_new_tokens=3, return_dict_in_generate=True)
        ids = torch.cat([output.sequences, inputs["input_ids"]], 1)
        past = {cache_name(family.model): output[cache_name(family.model)]}
        with pytest.raises(ScoreError, match="input_ids must not show another video in a later turn"):
            family.model.generate(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}, **past)


# --- wrapping and unwrapping


def test_what_is_told_afterwards() -> None:
    family = made("llava_onevision")
    _, given = inputs_of(family, PADDED)
    with THIRD.wrap(family.model) as wrapping:
        family.model.generate(**given, max_new_tokens=2)
        compressed = by_hand_kept(family)
        assert [kept.tolist() for kept in wrapping.kept] == compressed
        kept, whole = sum(map(len, compressed)), sum(map(len, family.batch(PADDED).places))
        assert wrapping.retention == kept / whole
        assert list(wrapping.milliseconds) == ["vision tower", "compression", "generate"]
        assert all(time > 0 for time in wrapping.milliseconds.values())
        wrapping.selector = Compressor(RandomMethod(3), 1.0)
        family.model(**given)
        assert wrapping.retention == 1 and list(wrapping.milliseconds) == ["vision tower", "compression"]


def by_hand_kept(family: Family) -> list[list[int]]:
    return [kept.tolist() for kept in by_hand(family, PADDED).kept]


def test_wrapped_twice() -> None:
    model = made("qwen2_5_vl").model
    wrapping = THIRD.wrap(model)
    with pytest.raises(ScoreError, match=r"model must not be wrapped already, which it is: unwrap\(\) that first"):
        THIRD.wrap(model)
    wrapping.unwrap()
    wrapping.unwrap()  # does nothing
    with wrap(model, THIRD):
        pass


def test_what_cannot_be_wrapped() -> None:
    with pytest.raises(TypeError, match="model must be one of"):
        THIRD.wrap(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"selector must have a method select .* got str"):
        wrap(made("qwen2_5_vl").model, "surprise")  # type: ignore[arg-type]


def test_a_second_block_is_refused() -> None:
    wrapping = THIRD.wrap(made("qwen2_5_vl").model)
    with wrapping:
        pass
    with pytest.raises(ScoreError, match="must be wrapped anew"), wrapping:
        pass


@pytest.mark.parametrize("name", ["input_ids", "attention_mask"])
def test_a_prompt_that_is_no_tensor(name: str) -> None:
    family = made("qwen2_5_vl")
    _, given = inputs_of(family, ONE)
    with THIRD.wrap(family.model), pytest.raises(TypeError, match=rf"inputs\['{name}'\] must be a tensor .*got list"):
        family.model(**{**given, name: given[name].tolist()})


def test_embeddings_beside_a_video_are_refused() -> None:
    family = made("qwen2_5_vl")
    _, given = inputs_of(family, ONE)
    embeds = family.model.get_input_embeddings()(given.pop("input_ids"))
    with THIRD.wrap(family.model):
        for call in (family.model, family.model.generate):
            with pytest.raises(ScoreError, match="input_ids must be given beside pictures, in place of inputs_embeds"):
                call(**given, inputs_embeds=embeds)


@some
def test_a_video_of_one_frame_and_a_row_without(name: str) -> None:
    for prompts in ([[5, ("video", 1), 6]], [[5, CLIP, 6], [7]]):
        assert torch.equal(wrapped_answer(made(name), prompts), answer(made(name), prompts))


@some
def test_checkpointed_training(name: str) -> None:
    """Passes are computed again on the way back, when the call is over."""
    family = FAMILIES[name]()
    _, given = inputs_of(family, ONE)
    given["labels"] = torch.full_like(given["input_ids"], -100)
    given["labels"][:, -3:] = given["input_ids"][:, -3:]
    gradients = []
    family.model.train()
    with THIRD.wrap(family.model), torch.enable_grad():
        for checkpointed in (False, True):
            if checkpointed:
                family.model.gradient_checkpointing_enable()
            family.model.zero_grad()
            family.model(**given, use_cache=False).loss.backward()
            gradients.append(family.model.get_input_embeddings().weight.grad.clone())
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def test_a_wrapped_model_saved_whole(tmp_path: Path) -> None:
    family = FAMILIES["llava_onevision"]()
    _, given = inputs_of(family, ONE)
    with THIRD.wrap(family.model):
        torch.save(family.model, tmp_path / "model.pt")
        wanted = family.model.generate(**given, max_new_tokens=3, do_sample=False)
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(again.generate(**given, max_new_tokens=3, do_sample=False), wanted)


def test_replaced_since() -> None:
    model = made("qwen2_5_vl").model
    wrapping = THIRD.wrap(model)
    ours, model.forward = model.forward, lambda **given: None
    with pytest.raises(ScoreError, match=r"model.forward must be as wrap\(\) left it, but was replaced since"):
        wrapping.unwrap()
    model.forward = ours
    wrapping.unwrap()


@some
def test_a_failure_leaves_the_model_as_it_was(name: str) -> None:
    family = made(name)
    _, given = inputs_of(family, ONE)

    def fail(*given: Any, **others: Any) -> Any:
        raise KeyError("inside")

    for options in ({"logits_processor": [fail]}, {"no_such_option": 1}):
        with THIRD.wrap(family.model) as wrapping:
            with pytest.raises((KeyError, ValueError)):
                family.model.generate(**given, max_new_tokens=2, **options)
            assert not wrapping._busy
            again = family.model.generate(**given, max_new_tokens=5, do_sample=False)[:, -5:]
        assert torch.equal(again, answer(family, ONE))
        assert not family.model._forward_pre_hooks


def test_a_selector_that_fails() -> None:
    class Fails:
        def select(self, videos: Any, question: Any = None, keep: Any = None) -> Any:
            raise RuntimeError("no")

    family = made("qwen2_5_vl")
    inputs, given = inputs_of(family, ONE)
    with pytest.raises(RuntimeError, match="no"), wrap(family.model, Fails()):
        family.model.generate(**given)
    assert family.model.generate(**inputs, max_new_tokens=1).shape[1] == inputs["input_ids"].shape[1] + 1


def test_a_copy_is_wrapped_by_itself() -> None:
    family = FAMILIES["llava_onevision"]()
    _, given = inputs_of(family, ONE)
    with THIRD.wrap(family.model):
        double = copy.deepcopy(family.model)
    double.get_input_embeddings().weight.mul_(-1)
    assert double.generate(**given, max_new_tokens=5).shape[1] == given["input_ids"].shape[1] + 5
    assert not torch.equal(double(**given).logits[:, -1], family.model(**given).logits[:, -1])
    assert set(family.model.state_dict()) == set(double.state_dict())
