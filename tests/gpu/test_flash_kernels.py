"""FlashAttention's real kernels on compressed prompts, against sdpa on whole ones with the dropped tokens masked.

They are those of flash_attn where it is installed, and those that torch has of its own; transformers decides what they
are told in both. On the CPU test_flash_attention.py is exact; here it is bfloat16, within rounding.
"""

from __future__ import annotations

import copy
import inspect
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "score_video" / "mllm"))  # its tiny models
tiny = pytest.importorskip("tiny")
flash = pytest.importorskip("flash")
masked = pytest.importorskip("masked")
Compressor = pytest.importorskip("score_video.compressor").Compressor
RandomMethod = pytest.importorskip("score_video.methods").RandomMethod

CLIP = ("video", 4)
BATCHES = {"one": [[5, CLIP, 6]], "padded": [[5, CLIP, 6], [2, CLIP, 3, CLIP, 4]]}
THIRD = Compressor(RandomMethod(3), 0.3)


def torch_kernels(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[Tensor, Tensor], causal: bool, scale: Any) -> Tensor:
    """[Q, H, D], [K, G, D] -> [Q, H, D], by the kernels in torch; lengths: cu_seqlens int32 of queries and keys."""
    from torch.nn.attention.varlen import varlen_attn

    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
    longest = [int(cu.diff().max()) for cu in lengths]
    known = inspect.signature(varlen_attn).parameters  # they change from release to release
    if "scale" not in known and scale is not None:
        q = q * (scale * q.shape[-1] ** 0.5)
    options: dict[str, Any] = {"scale": scale} if "scale" in known else {}
    options |= {"is_causal": causal} if "is_causal" in known else {"window_size": (-1, 0) if causal else (-1, -1)}
    out: Tensor = varlen_attn(q, k, v, *lengths, *longest, **options)
    return out


@pytest.mark.parametrize("kernels", ["flash_attn", "torch"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_logits_and_answers(name: str, batch: str, kernels: str) -> None:
    if kernels == "flash_attn" and find_spec("flash_attn") is None:
        pytest.skip("flash_attn is not installed")
    family = tiny.FAMILIES[name]()
    model = copy.deepcopy(family.model).to("cuda", torch.bfloat16)
    family = type(family)(model, family.write, family.told, family.mixes)
    written = family.batch(BATCHES[batch])
    inputs = {
        name: value.to("cuda", torch.bfloat16 if value.is_floating_point() else None)
        for name, value in written.inputs().items()
    }
    told = {"visual_layout": written.pictures} if family.told else {}
    from score_video.mllm import compress_inputs

    with torch.no_grad():
        whole = masked.masked(
            model, inputs, masked.dropped(written, compress_inputs(model, inputs, THIRD, **told).kept)
        )
        wanted = model(**whole).logits[whole["attention_mask"].bool()]
        by_sdpa = compress_inputs(model, inputs, THIRD, **told)
        rounding = masked.difference(model(**by_sdpa).logits[by_sdpa["attention_mask"].bool()], wanted)
        with flash.flash_attention(model, torch_kernels if kernels == "torch" else None):
            compressed = compress_inputs(model, inputs, THIRD, **told)
            ours = model(**compressed).logits[compressed["attention_mask"].bool()]
            answer = model.generate(**compressed, max_new_tokens=4, do_sample=False)
    apart = (ours - wanted).abs().float().amax(-1) / wanted.abs().max()
    # rounding may hand a token to another expert, where two were nearly as good: that token alone is far off then
    mixture = any("expert" in name for name, _ in model.named_modules())
    assert (apart.quantile(0.75) if mixture else apart.max()) <= max(2 * rounding, 0.02)
    assert answer.shape[1] == compressed.prompt_length + 4
