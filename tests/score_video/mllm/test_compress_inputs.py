"""What compress_inputs does with inputs of every kind, apart from being exact (test_exactness.py)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from masked import TOLERANCE, Pair, difference, dropped, masked
from tiny import FAMILIES, VIDEO, Family
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from score_video.compressor import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import CompressedInputs, compress_inputs, encode_inputs, supported_models
from score_video.packed import PackedVideos, Selection

CLIP = ("video", 4)
made = functools.cache(lambda name: FAMILIES[name]())
THIRD = Compressor(RandomMethod(3), 0.3)


def inputs_of(name: str, *prompts: Any, side: str = "left") -> tuple[Family, dict[str, Any]]:
    return made(name), made(name).batch(prompts).inputs(side)


# --- no video


@pytest.mark.parametrize("name", FAMILIES)
def test_text_is_handed_through_unchanged(name: str) -> None:
    family, inputs = inputs_of(name, [5], [7])
    compressed = THIRD(family.model, **inputs)
    assert dict(compressed) == inputs and compressed.videos is None and compressed.selected is None
    assert compressed.kept == [] and compressed.prompt_length == 7
    assert encode_inputs(family.model, inputs) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_images_are_handed_through_unchanged(name: str) -> None:
    family, inputs = inputs_of(name, [5, "image", 2], [7])
    compressed = THIRD(family.model, **inputs)
    assert dict(compressed) == inputs and compressed.videos is None
    family.model(**compressed)


# --- families that have to be told


@pytest.mark.parametrize("name", ["internvl", "smolvlm"])
@pytest.mark.parametrize(
    "prompt", [[2, CLIP, 3], ["image", CLIP, 3], [2, ("video", 1), 3]], ids=["video", "mixed", "one frame"]
)
def test_what_may_be_an_image_is_refused(name: str, prompt: list[Any]) -> None:
    """These models were not loaded from anywhere: nothing reads the text between the frames (test_visual_layout.py)."""
    family, inputs = inputs_of(name, [5], prompt)
    with pytest.raises(
        ValueError, match=r"visual_layout must be given: prompt 1 has runs of \[.* has no tokenizer beside"
    ):
        THIRD(family.model, **inputs)


@pytest.mark.parametrize("prompt", [["image", 3], [2, "image", 1, "image", "image", 3]])
def test_tiles_of_images_are_no_frames(prompt: list[Any]) -> None:
    family, inputs = inputs_of("smolvlm", prompt)
    count = prompt.count("image")
    assert THIRD(family.model, **inputs).videos is None
    assert THIRD(family.model, **inputs, visual_layout=[[("image", 3)] * count]).videos is None


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([[("video", 4)]], "must have a list for each of 2 prompts, got 1"),
        ([[("video", 4)], []], r"visual_layout\[1\] is of 0 runs of placeholders, the prompt has 4"),
        ([[("video", 4)], [("video", 5)]], r"visual_layout\[1\] is of 5 runs of placeholders, the prompt has 4"),
        ([[("film", 4)], [("video", 4)]], r"visual_layout\[0\] must hold \('image', runs\) and \('video', frames\)"),
        ([[("video", 0)], [("video", 4)]], r"visual_layout\[0\] must hold .* got \('video', 0\)"),
    ],
)
def test_pictures_that_do_not_fit(pictures: Any, message: str) -> None:
    family, inputs = inputs_of("internvl", [2, CLIP, 3], [CLIP, 4])
    with pytest.raises(ValueError, match=message):
        compress_inputs(family.model, inputs, THIRD, visual_layout=pictures)


def test_a_cut_image_cannot_be_called_a_video() -> None:
    family, inputs = inputs_of("internvl", [2, "image", 3])
    with pytest.raises(ValueError, match=r"runs of 9 placeholders, the tokens of a frame, got .* for runs of \[27\]"):
        compress_inputs(family.model, inputs, THIRD, visual_layout=[[("video", 1)]])


def test_others_need_not_be_told() -> None:
    family, inputs = inputs_of("qwen2_5_vl", [2, CLIP, 3])
    with pytest.raises(
        ValueError, match="visual_layout must be None for qwen2_5_vl: its inputs tell images from videos"
    ):
        THIRD(family.model, **inputs, visual_layout=[[("video", 4)]])


# --- what cannot be right


def test_an_unknown_model() -> None:
    for model, kind in (
        (nn.Linear(1, 1), "got Linear$"),
        (
            BertModel(BertConfig(vocab_size=2, hidden_size=2, num_hidden_layers=1, num_attention_heads=1)),
            "got BertModel of type 'bert'$",
        ),
    ):
        with pytest.raises(TypeError, match=f"model must be one of {', '.join(supported_models())}.*{kind}"):
            THIRD(model, input_ids=torch.zeros(1, 1, dtype=torch.long))


QWEN, LLAVA = "qwen2_5_vl", "llava_next_video"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (QWEN, lambda i: i | {"position_ids": i["input_ids"]}, "without position_ids, past_key_values or cache"),
        (QWEN, lambda i: i | {"past_key_values": object()}, "without position_ids, past_key_values or cache"),
        (QWEN, lambda i: i | {"video_grid_thw": None}, "must have video_grid_thw beside pixel_values_videos"),
        (QWEN, lambda i: i | {"mm_token_type_ids": None}, "must have mm_token_type_ids, as the processor makes them"),
        (QWEN, lambda i: i | {"mm_token_type_ids": i["mm_token_type_ids"] * 0}, "2 of videos"),
        (QWEN, lambda i: i | {"token_weights": i["input_ids"]}, "must be without 'token_weights'"),
        (
            QWEN,
            lambda i: i | {"input_ids": i["input_ids"].masked_fill(i["input_ids"] == VIDEO, 50)},
            r"inputs\['input_ids'\] has 0 placeholders of videos, their features are 24",
        ),
        (LLAVA, lambda i: i | {"input_ids": i["input_ids"].flip(1)}, "must not end with a video"),
        (
            LLAVA,
            lambda i: i | {"attention_mask": torch.zeros_like(i["input_ids"])},
            r"inputs\['attention_mask'\] must be 1 at placeholders of videos",
        ),
        (
            LLAVA,
            lambda i: i | {"labels": i["input_ids"]},
            r"inputs\['labels'\] must be -100 at padding and at placeholders of videos",
        ),
    ],
)
def test_refused(name: str, change: Any, message: str) -> None:
    family, inputs = inputs_of(name, [CLIP, 3])
    with pytest.raises(ValueError, match=message):
        THIRD(family.model, **change(inputs))


def test_a_video_across_prompts_is_refused() -> None:
    family, inputs = inputs_of("llava_next_video", [1, CLIP, 1, CLIP, 2])
    ids = inputs["input_ids"]
    halves = torch.cat([ids.masked_fill(ids == VIDEO, 50), ids])
    halves[0, 10], halves[1, 10] = VIDEO, 50  # one of the first video's
    mask = torch.ones_like(halves)
    with pytest.raises(ValueError, match="must have all placeholders of a video in one prompt"):
        THIRD(family.model, **{**inputs, "input_ids": halves, "attention_mask": mask})


@pytest.mark.parametrize("changes", [{"layer_types": ["full_attention", "sliding_attention"]}, {"sliding_window": 8}])
def test_sliding_windows_are_refused(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    family, inputs = inputs_of("llava_next_video", [2, CLIP, 3])
    for name, value in changes.items():
        monkeypatch.setattr(family.model.config.text_config, name, value, raising=False)
    with pytest.raises(ValueError, match="layers of full attention only, got 'sliding_attention'"):
        THIRD(family.model, **inputs)


@pytest.mark.parametrize(("kind", "limit"), [("dynamic", 4096), ("longrope", 20)])
def test_rotations_that_change_with_the_length_are_refused(
    kind: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only prompts that are long enough for them to change, as they are uncompressed."""
    family, inputs = inputs_of("llava_next_video", [2, CLIP, 3])
    config = family.model.config.text_config
    rope = {**config.rope_parameters, "rope_type": kind, "factor": 2.0}
    monkeypatch.setattr(config, "rope_parameters", rope | {"original_max_position_embeddings": limit})
    if limit > 41:
        assert THIRD(family.model, **inputs).videos is not None
        rope.pop("original_max_position_embeddings", None)
        monkeypatch.setattr(config, "rope_parameters", rope)
        monkeypatch.setattr(config, "max_position_embeddings", limit := 40)
    with pytest.raises(ValueError, match=rf"at most {limit} tokens in a prompt, got 41: beyond, the '{kind}' rotary"):
        THIRD(family.model, **inputs)


@pytest.mark.parametrize("index", [[3, 2], [2, 2], [-1, 4], [4, 24]])
def test_selections_that_are_none(index: list[int]) -> None:
    family, inputs = inputs_of("qwen2_5_vl", [2, CLIP, 3])
    encoded = encode_inputs(family.model, inputs)
    assert encoded is not None
    with pytest.raises(ValueError, match=r"selected.index must be ascending rows of 24 tokens"):
        encoded.compress(Selection(torch.tensor(index), torch.tensor([2])))


@pytest.mark.parametrize(
    ("index", "keep", "message"),
    [
        ([3, 5], [1], r"selected.keep must be how many rows of index are each video's: \[2\]"),
        ([3, 5], [1, 1], r"selected.keep must be integers \[1\], got int64 \[2\]"),
        ([3, 5], [2.0], r"selected.keep must be integers \[1\], got float32 \[1\]"),
        ([[3, 5]], [2], r"selected.index must be int64 \[K\], got int64 \[1, 2\]"),
        ([True, False], [2], r"selected.index must be int64 \[K\], got bool \[2\]"),
    ],
)
def test_selections_of_another_form(index: list[Any], keep: list[Any], message: str) -> None:
    family, inputs = inputs_of("qwen2_5_vl", [2, CLIP, 3])
    encoded = encode_inputs(family.model, inputs)
    assert encoded is not None
    with pytest.raises(ValueError, match=message):
        encoded.compress(Selection(torch.tensor(index), torch.tensor(keep)))


# --- what selects may be anything


class FirstFrames:
    """Keeps each video's first frame, knowing nothing of compressors."""

    def __init__(self) -> None:
        self.seen: list[Tensor | None] = []

    def select(
        self, videos: PackedVideos, question: Tensor | None = None, keep: Sequence[int] | None = None
    ) -> Selection:
        assert keep is None
        self.seen.append(question)
        starts = videos.cu_seqlens[:-1].tolist()
        rows = [torch.arange(n) + start for start, n in zip(starts, videos.tokens_per_frame.tolist(), strict=True)]
        return Selection(torch.cat(rows), videos.tokens_per_frame)


class LooksAtTheQuestion(FirstFrames):
    needs_question = True


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", [FirstFrames, LooksAtTheQuestion])
def test_a_selector_of_ones_own(name: str, kind: type[FirstFrames]) -> None:
    family = made(name)
    batch = family.batch([[2, CLIP, 3], [5, CLIP, 4]])
    told: Any = {"visual_layout": batch.pictures} if family.told else {}
    selector = kind()
    with torch.no_grad():
        compressed = compress_inputs(family.model, batch.inputs(), selector, **told)
        assert compressed.videos is not None
        frames = compressed.videos.tokens_per_frame.tolist()
        assert [kept.tolist() for kept in compressed.kept] == [list(range(n)) for n in frames]
        whole = masked(family.model, batch.inputs(), dropped(batch, compressed.kept))
        pair = Pair(compressed, whole)
        assert difference(*pair.logits(family.model)) <= TOLERANCE
        ours, theirs = pair.generated(family.model, max_new_tokens=3)
        assert torch.equal(*pair.new_tokens(ours, theirs))
        (question,) = selector.seen
        if kind is FirstFrames:
            assert question is None
        else:
            encoded = encode_inputs(family.model, batch.inputs(), **told)
            assert encoded is not None and question is not None and torch.equal(question, encoded.question())


def test_former_names_of_arguments() -> None:
    family, inputs = inputs_of("internvl", [2, CLIP, 3])
    now = compress_inputs(family.model, inputs, THIRD, visual_layout=[[CLIP]])
    former: Any = {"pictures": [[CLIP]]}
    with pytest.warns(DeprecationWarning, match="is now called") as warned:
        encoded = encode_inputs(family.model, inputs, **former)
        outputs = [
            compress_inputs(family.model, inputs, THIRD, **former),
            compress_inputs(family.model, inputs, visual_layout=[[CLIP]], **{"compressor": THIRD}),  # type: ignore
            THIRD(family.model, **inputs, **former),
        ]
    assert all(warning.filename == __file__ for warning in warned)
    assert [str(warning.message).split()[0] for warning in warned] == ["pictures", "pictures", "compressor", "pictures"]
    assert encoded is not None and torch.equal(encoded.prompt.input_ids, inputs["input_ids"])
    for output in outputs:
        assert torch.equal(output["inputs_embeds"], now["inputs_embeds"])
    with pytest.raises(ValueError, match="pictures is the former name of visual_layout: give visual_layout alone"):
        compress_inputs(family.model, inputs, THIRD, visual_layout=[[CLIP]], **former)


# --- any selection, any prompt

PARTS = st.lists(st.one_of(st.integers(1, 4), st.just("image"), st.just(("video", 2))), max_size=4)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PARTS, min_size=1, max_size=3), st.data())
def test_any_prompt_and_selection(name: str, parts: list[list[Any]], data: st.DataObject) -> None:
    prompts = [[*row, 2] for row in parts]
    batch = made(name).batch(prompts)
    pictures = batch.pictures if made(name).told else None
    with torch.no_grad():
        encoded = encode_inputs(made(name).model, batch.inputs(), visual_layout=pictures)
        if encoded is None:
            assert not batch.places
            return
        places = sum(len(places) for places in batch.places)
        kept = torch.tensor(data.draw(st.lists(st.booleans(), min_size=places, max_size=places)))
        keep = torch.stack([one.sum() for one in kept.split([len(one) for one in batch.places])])
        compressed = encoded.compress(Selection(kept.nonzero().flatten(), keep))
        whole = masked(made(name).model, batch.inputs(), dropped(batch, compressed.kept))
        assert difference(*Pair(compressed, whole).logits(made(name).model)) <= TOLERANCE


# --- models in wrappers


class Wrapper(nn.Module):
    """As peft's: another module around the model, whose attributes it hands on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)

    def forward(self, **inputs: Any) -> Any:
        return self.base_model(**inputs)


def compiled(model: nn.Module) -> Any:
    torch._dynamo.reset()
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize(("name", "wrap"), [("qwen3_vl", Wrapper), ("llava_onevision", Wrapper), ("smolvlm", compiled)])
def test_wrapped_models(name: str, wrap: Any) -> None:
    family, inputs = inputs_of(name, [2, CLIP, 3])
    model = wrap(family.model)
    with torch.no_grad():
        told = {"visual_layout": [[CLIP]]} if family.told else {}
        plain = THIRD(family.model, **inputs, **told)
        wrapped = THIRD(model, **inputs, **told)
        ours = model(**wrapped, use_cache=False)
        assert difference(ours.logits, family.model(**plain).logits) <= TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
def test_peft(name: str) -> None:
    peft = pytest.importorskip("peft")
    family = FAMILIES[name]()  # it is changed
    inputs = family.batch([[2, CLIP, 3], [5, CLIP, 3]]).inputs()
    told = {"visual_layout": [[CLIP], [CLIP]]} if family.told else {}
    answers = {"max_new_tokens": 4, "do_sample": False}
    with torch.no_grad():
        plain = THIRD(family.model, **inputs, **told)
        logits, tokens = family.model(**plain).logits, family.model.generate(**plain, **answers)
        model = peft.get_peft_model(family.model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
        wrapped = THIRD(model, **inputs, **told)
        assert difference(model(**wrapped).logits, logits) <= TOLERANCE
        assert torch.equal(model.generate(**wrapped, **answers), tokens)


# --- used again


def test_new_outputs_for_each_use() -> None:
    family, inputs = inputs_of("qwen3_vl", [2, CLIP, 3])
    compressed: CompressedInputs = THIRD(family.model, **inputs)
    first, second = compressed["mm_encoder_outputs"], compressed["mm_encoder_outputs"]
    assert first is not second and first["video"] is not second["video"]
    first["video"].pooler_output = []  # as generate does for several answers
    assert len(compressed["mm_encoder_outputs"]["video"].pooler_output) == 1
