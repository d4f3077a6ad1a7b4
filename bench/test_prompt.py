"""What rewriting a prompt of 10,000 tokens takes, part by part; of one thread.

    .venv/bin/python -m pytest bench/test_prompt.py --benchmark-enable --benchmark-disable-gc

The vision tower and the choice of tokens are no part of it. Positions are the stock model's own work, which it is
spared where they are handed over: they have a row of their own, and are ready-made in the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

import score_ext
from score_video import Compressor
from score_video.mllm import encode_inputs
from score_video.mllm.compress import EncodedInputs

TOKENS, WIDTH = 10_000, 3584
GRID = (62, 24, 26)  # patches, merged two by two: 9,672 visual tokens
IMAGE, VIDEO, START, END, TEXT = 3, 4, 5, 6, 20
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    frames, rows, columns = GRID
    visual = frames * rows * columns // 4
    ids = torch.full((1, TOKENS), TEXT)
    ids[:, 100], ids[:, 101 : 101 + visual], ids[:, 101 + visual] = START, VIDEO, END
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": 2 * (ids == VIDEO).long(),
        "video_grid_thw": torch.tensor([GRID]),
        "second_per_grid_ts": torch.tensor([1.0]),
        "pixel_values_videos": torch.zeros(1, 1),
    }


class Ready:
    """A model whose vision tower and positions are done."""

    def __init__(self, dtype: torch.dtype) -> None:
        text = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 28}
        text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32768}
        vision = {"depth": 32, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 32}
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
        config = Qwen2_5_VLConfig(
            text_config={**text, "rope_parameters": rope},
            vision_config=vision,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=START,
            vision_end_token_id=END,
        )
        self.model: Any = Qwen2_5_VLForConditionalGeneration(config).eval()
        self.model.generation_config.pad_token_id = 0  # released models have one
        self.positions = self.model.model.get_rope_index
        tokens = GRID[0] * GRID[1] * GRID[2] // 4
        rows = torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
        ready: dict[str, Any] = {}

        def features(pixel_values_videos: Tensor, video_grid_thw: Tensor, return_dict: bool = True) -> SimpleNamespace:
            return SimpleNamespace(pooler_output=(rows,))

        def positions(
            input_ids: Tensor,
            mm_token_type_ids: Tensor,
            image_grid_thw: Tensor | None = None,
            video_grid_thw: Tensor | None = None,
            second_per_grid_ts: Tensor | None = None,
            attention_mask: Tensor | None = None,
        ) -> tuple[Tensor, Tensor]:
            if "positions" not in ready:
                ready["positions"] = self.positions(
                    input_ids,
                    mm_token_type_ids,
                    video_grid_thw=video_grid_thw,
                    second_per_grid_ts=second_per_grid_ts,
                    attention_mask=attention_mask,
                )
            made: tuple[Tensor, Tensor] = ready["positions"]
            return made

        self.model.model.__dict__.update(get_video_features=features, get_rope_index=positions)


@pytest.fixture(scope="module", params=DTYPES)
def ready(request: pytest.FixtureRequest) -> Ready:
    return Ready(DTYPES[request.param])


def encoded_by(ready: Ready, inputs: dict[str, Tensor]) -> EncodedInputs:
    encoded = encode_inputs(ready.model, inputs)
    assert encoded is not None
    return encoded


@pytest.mark.benchmark(group="rewrite a prompt of 10,000 tokens")
def test_rewrite(benchmark: Any, ready: Ready, inputs: dict[str, Tensor]) -> None:
    """From the processor's output to the model's arguments, 10% kept."""
    selected = encoded_by(ready, inputs).select(Compressor("uniform", 0.1))

    def rewrite() -> dict[str, Any]:
        return dict(encoded_by(ready, inputs).compress(selected))

    made = benchmark.pedantic(rewrite, rounds=200, warmup_rounds=20)
    assert made["input_ids"].shape == (1, TOKENS - 9672 + 967)


@pytest.mark.benchmark(group="of that: reading the prompt")
def test_read(benchmark: Any, ready: Ready, inputs: dict[str, Tensor]) -> None:
    benchmark.pedantic(encoded_by, args=(ready, inputs), rounds=200, warmup_rounds=20)


@pytest.mark.benchmark(group="of that: shortening it")
def test_compress(benchmark: Any, ready: Ready, inputs: dict[str, Tensor]) -> None:
    encoded = encoded_by(ready, inputs)
    selected = encoded.select(Compressor("uniform", 0.1))
    benchmark.pedantic(encoded.compress, args=(selected,), rounds=200, warmup_rounds=20)


@pytest.mark.benchmark(group="of that: the kept features, copied")
def test_gather(benchmark: Any, ready: Ready, inputs: dict[str, Tensor]) -> None:
    encoded = encoded_by(ready, inputs)
    selected = encoded.select(Compressor("uniform", 0.1))
    benchmark.pedantic(
        score_ext.gather, args=(encoded.visuals.features.rows, selected.index), rounds=200, warmup_rounds=20
    )


@pytest.mark.benchmark(group="no part of it: the stock model's positions")
def test_stock_positions(benchmark: Any, ready: Ready, inputs: dict[str, Tensor]) -> None:
    names = ("input_ids", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts", "attention_mask")
    benchmark.pedantic(ready.positions, kwargs={name: inputs[name] for name in names}, rounds=100, warmup_rounds=10)
