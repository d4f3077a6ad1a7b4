"""``compressor.wrap(model)`` around what other libraries make of a model: it answers as on compressed inputs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Family, Prompts
from tiny_families import MASKED as FAMILIES
from torch import Tensor

from score_video.compressor import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import compress_inputs
from score_video.testing import save_tiny_model

pytestmark = pytest.mark.usefixtures("without_gradients")

CLIP = ("video", 4)
PADDED: Prompts = [[5, CLIP, 6], [2, CLIP, 3, CLIP, 4]]
THIRD = Compressor(RandomMethod(3), 0.3)
SOME = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl")
OPTIONS: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}

made = functools.cache(lambda name: FAMILIES[name]())
some = pytest.mark.parametrize("name", SOME)


def check(family: Family, model: Any) -> None:
    """``model`` is made of the family's, and is called wrapped and not."""
    batch = family.batch(PADDED)
    inputs, told = batch.inputs(), {"visual_layout": batch.pictures} if family.told else {}
    compressed = compress_inputs(model, inputs, THIRD, **told)
    wanted = model.generate(**compressed, **OPTIONS)[:, compressed.prompt_length :]
    logits = model(**compressed).logits
    attributes = dict(model.__dict__)
    with THIRD.wrap(model) as wrapping:
        for _ in range(2):
            answer = model.generate(**inputs, **told, **OPTIONS)
            assert torch.equal(answer[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
            assert torch.equal(answer[:, inputs["input_ids"].shape[1] :], wanted)
            whole = model(**inputs, **told).logits
            assert wrapping.retention is not None and wrapping.retention < 0.35
        assert wrapping.latest is not None
        torch.testing.assert_close(whole[wrapping.latest.places], logits[compressed["attention_mask"].bool()])
        text = {name: value[:, -3:] for name, value in inputs.items() if name in ("input_ids", "attention_mask")}
        assert model.generate(**text, **OPTIONS).shape[1] == 7
    assert model.__dict__.keys() == attributes.keys()
    assert all(model.__dict__[name] is value for name, value in attributes.items() if name in ("forward", "generate"))


@some
def test_peft(name: str) -> None:
    peft = pytest.importorskip("peft")
    family = FAMILIES[name]()  # it is changed
    config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    check(family, peft.get_peft_model(family.model, config))


def test_the_model_inside_of_a_peft_model() -> None:
    peft = pytest.importorskip("peft")
    family = FAMILIES["qwen2_5_vl"]()
    inputs = family.batch(PADDED).inputs()
    with THIRD.wrap(family.model) as wrapping:
        config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        model = peft.get_peft_model(family.model, config)
        answer = model.generate(**inputs, **OPTIONS)
        assert wrapping.retention is not None and wrapping.retention < 0.35
        with pytest.raises(ValueError, match="must not be wrapped already"):
            THIRD.wrap(model)
    compressed = compress_inputs(model, inputs, THIRD)
    assert torch.equal(answer[:, -4:], model.generate(**compressed, **OPTIONS)[:, -4:])


@some
def test_device_map(name: str, tmp_path: Path) -> None:
    """Parts of the language model on the disk: accelerate has put forwards of its own into every module."""
    accelerate = pytest.importorskip("accelerate")
    family = FAMILIES[name]()
    core = "model.language_model"
    top = {f"model.{child}": "cpu" for child, _ in family.model.model.named_children() if child != "language_model"}
    top |= {f"model.{own}": "cpu" for own in family.model.model._parameters}
    layers = {f"{core}.{child}": "cpu" for child, _ in family.model.model.language_model.named_children()}
    del layers[f"{core}.layers"]
    device_map = {**top, **layers, f"{core}.layers.0": "cpu", f"{core}.layers.1": "disk", "lm_head": "cpu"}
    model = accelerate.dispatch_model(family.model, device_map, main_device="cpu", offload_dir=tmp_path)
    assert "forward" in model.__dict__
    check(family, model)


def test_compiled() -> None:
    family = made("qwen2_5_vl")
    inputs = family.batch(PADDED).inputs()
    torch._dynamo.reset()
    model = torch.compile(family.model, backend="eager", dynamic=True)
    options = {**OPTIONS, "max_new_tokens": 2, "min_new_tokens": 2}  # each more is compiled anew
    with THIRD.wrap(family.model):
        wanted, answer = family.model(**inputs).logits, family.model.generate(**inputs, **options)
    with THIRD.wrap(model):
        torch.testing.assert_close(model(**inputs).logits, wanted)
        assert torch.equal(model.generate(**inputs, **options), answer)
    assert family.model(**inputs).logits.shape == wanted.shape


def test_compiled_in_place() -> None:
    """What is in the model stays compiled."""
    family = FAMILIES["llava_onevision"]()
    torch._dynamo.reset()
    compiled: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        compiled.append(str(graph.graph))
        return graph.forward

    inputs = family.batch(PADDED).inputs()
    with THIRD.wrap(family.model):
        wanted = family.model(**inputs).logits
        family.model.compile(backend=backend, dynamic=True)
        for _ in range(2):
            torch.testing.assert_close(family.model(**inputs).logits, wanted)
    assert any("scaled_dot_product_attention" in graph for graph in compiled)


@some
def test_torchao(name: str) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    family = FAMILIES[name]()
    quantization.quantize_(family.model.get_decoder(), quantization.Int8WeightOnlyConfig())
    check(family, family.model)


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    FAMILIES["qwen2_5_vl"]().model.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, quantization_config=config).eval()
    linear = type(model.get_decoder().layers[0].self_attn.q_proj).__name__
    assert linear == {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    check(FAMILIES["qwen2_5_vl"](), model)


def test_pipeline(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    from transformers import pipeline

    save_tiny_model(tmp_path / "model", "qwen2_5_vl")
    pipe = pipeline("image-text-to-text", model=str(tmp_path / "model"), device="cpu")
    frames = torch.randint(256, (8, 3, 112, 112), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    content = [{"type": "video", "video": frames.numpy()}, {"type": "text", "text": "What happens?"}]
    asked = {"text": [{"role": "user", "content": content}], "max_new_tokens": 6}
    options = {"return_tensors": True, "processor_kwargs": {"do_sample_frames": False}}
    (stock,) = pipe(**asked, **options)
    with THIRD.wrap(pipe.model) as wrapping:
        (ours,) = pipe(**asked, **options)
        assert wrapping.latest is not None and wrapping.retention is not None and wrapping.retention < 0.35
        by_hand = wrapping.latest
    prompt = len(stock["generated_token_ids"]) - 6
    assert ours["generated_token_ids"][:prompt].tolist() == stock["generated_token_ids"][:prompt].tolist()
    wanted = pipe.model.generate(**by_hand, max_new_tokens=6)[0, by_hand.prompt_length :]
    assert ours["generated_token_ids"][prompt:].tolist() == wanted.tolist()
