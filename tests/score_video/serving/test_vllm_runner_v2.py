"""vLLM's model runner V2, the default on GPUs: its part that puts our positions into a prompt, with tensors of ours.

The runner itself needs Triton. What it does with the models of a plugin is in one class, ``MultiModalPruner``, which
runs here on the CPU: it cuts a batch's embeddings into those of each request, and hands them to the model.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bare_models
import numpy as np
import pytest
import torch
from bare_models import END, IMAGE, RATE, START, TEXT, VIDEO, WIDTH, Inputs, merged
from engines import needs_vllm
from torch import Tensor

from score_ext.budget import evs_count
from score_video.compressor import Compressor
from score_video.methods import RandomMethod

pytestmark = needs_vllm

RUN, TIMED = "Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration"
LEVELS = {RUN: 0, TIMED: 2}  # of DeepStack: features for the first layers, beside each token's own
IMAGE_GRID = (1, 4, 6)
VIDEO_GRIDS = (4, 6, 8), (3, 4, 4)
Item = tuple[str, tuple[int, int, int], float | None]
REQUESTS: dict[str, list[Item | int]] = {  # numbers are of tokens of text
    "video": [5, ("video", VIDEO_GRIDS[0], 0.5), 6],
    "image and videos": [
        *(2, ("image", IMAGE_GRID, None), 3, ("video", VIDEO_GRIDS[0], 2.0), 1),
        *(("video", VIDEO_GRIDS[1], 0.5), ("image", IMAGE_GRID, None), 4),
    ],
    "text": [9],
    "embeddings without times": [("video", VIDEO_GRIDS[1], None), 7],
}


@pytest.fixture(params=[RUN, TIMED])
def model(request: pytest.FixtureRequest) -> Any:
    """Ours, without weights; it chooses at random."""
    return bare_models.bare_model(request.param, Compressor(RandomMethod(1)))


class Request:
    """A prompt as vLLM holds it, with its items' embeddings from our model, and what its positions must become.

    Attributes:
        ids: of the pruned prompt.
        features: vLLM's, of the pruned prompt.
        embeds: of each item, with our columns.
        rows: of each item, without.
        positions, delta: vLLM's own of the whole prompt, at the tokens that are kept.
    """

    def __init__(self, model: Any, parts: list[Item | int], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids: list[int] = []
        self.features: list[Any] = []
        self.embeds: list[Tensor] = []
        self.rows: list[Tensor] = []
        whole: list[int] = []
        whole_features: list[Any] = []
        kept: list[int] = []
        width = WIDTH * (1 + LEVELS[type(model).__name__])
        for part in parts:
            if isinstance(part, int):
                kept += range(len(whole), len(whole) + part)
                whole += [TEXT] * part
                self.ids += [TEXT] * part
                continue
            modality, grid, second = part
            tokens = torch.randn(merged(grid), width, generator=generator)
            item = _encode(model, modality, grid, second, tokens)
            full = _ids_of(model, modality, grid, second, [merged(grid) // grid[0]] * grid[0])
            chosen = (item[:, None, :width] == tokens).all(2).nonzero()[:, 1].tolist()
            assert chosen == sorted(set(chosen))
            assert modality == "image" or len(chosen) == evs_count(grid[0], merged(grid) // grid[0], RATE)
            visual = [place for place, token in enumerate(full) if token in (IMAGE, VIDEO)]
            stays = sorted({*range(len(full))} - {*visual} | {visual[number] for number in chosen})
            assert len(stays) == len(item)
            shorter = _ids_of(model, modality, grid, second, [len(chosen)] + [0] * (grid[0] - 1))
            for ids, features, item_ids in (
                (whole, whole_features, full),
                (self.ids, self.features, shorter),
            ):
                features.append(_feature(modality, grid, second, len(ids) + 1, len(item_ids)))
            kept += [len(whole), *(len(whole) + 1 + place for place in stays), len(whole) + 1 + len(full)]
            whole += [START, *full, END]
            self.ids += [START, *shorter, END]
            self.embeds.append(item)
            self.rows.append(item[:, :width])
        stock = type(model).__bases__[1].get_mrope_input_positions
        positions, _ = stock(model, whole, whole_features)
        self.positions = positions[:, kept]
        self.delta = int(positions.max()) + 1 - len(self.ids)


def _times(grid: Any, second: float | None) -> list[float]:
    return [frame * (second or 1.0) for frame in range(grid[0])]


def _ids_of(model: Any, modality: str, grid: Any, second: float | None, per_frame: list[int]) -> list[int]:
    """What stands for an item in a prompt, with so many placeholders in each of its frames."""
    if modality == "image" or type(model).__name__ == RUN:
        return [{"image": IMAGE, "video": VIDEO}[modality]] * sum(per_frame)
    from vllm.model_executor.models.qwen3_vl import Qwen3VLMultiModalProcessor

    ids: list[int] = Qwen3VLMultiModalProcessor.get_video_repl(
        tokens_per_frame=per_frame,
        timestamps=_times(grid, second),
        tokenizer=model._tokenizer,
        vision_start_token_id=START,
        vision_end_token_id=END,
        video_token_id=VIDEO,
    ).full
    return ids


def _encode(model: Any, modality: str, grid: Any, second: float | None, tokens: Tensor) -> Tensor:
    if modality == "image":
        (embeds,) = model._postprocess_image_embeds_evs([tokens], {"image_grid_thw": torch.tensor([grid])})
        return embeds  # type: ignore[no-any-return]
    inputs = Inputs(video_grid_thw=torch.tensor([grid]))
    inputs.timestamps = [_times(grid, second)]
    if second is not None:
        inputs["second_per_grid_ts"] = torch.tensor([second])
    (embeds,) = model._postprocess_video_embeds_evs([tokens], inputs)
    return embeds  # type: ignore[no-any-return]


def _feature(modality: str, grid: Any, second: float | None, offset: int, length: int) -> Any:
    from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange

    data = {f"{modality}_grid_thw": SimpleNamespace(data=torch.tensor(grid))}
    if second is not None:
        data["second_per_grid_ts"] = SimpleNamespace(data=torch.tensor(second))
    return MultiModalFeatureSpec(
        data=data,  # type: ignore[arg-type]
        modality=modality,
        identifier=f"{modality}{offset}",
        mm_position=PlaceholderRange(offset=offset, length=length),
    )


def pruner(model: Any, requests: list[Request], longest: int) -> Any:
    """vLLM's, and its state of positions, whose buffers on a GPU are mapped from the host: here they are plain."""
    from vllm.v1.worker.gpu.mm.rope import RopeState
    from vllm.v1.worker.gpu.model_states.mm_pruning import MultiModalPruner

    state = RopeState.__new__(RopeState)
    state.num_dims = 3
    state.prefill_positions = SimpleNamespace(gpu=torch.zeros(3 * len(requests), longest, dtype=torch.int32))
    state.prefill_delta = SimpleNamespace(np=np.zeros(len(requests), dtype=np.int32))
    for number, request in enumerate(requests):
        positions, delta = model.get_mrope_input_positions(request.ids, request.features)
        state.update_prefill_positions(number, positions, delta)
    cache = SimpleNamespace(mm_features={str(n): request.features for n, request in enumerate(requests)})
    return MultiModalPruner(model, state, cache, WIDTH)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [1, 3, 7, 20, 1000])
def test_positions_of_every_request(model: Any, chunk: int) -> None:
    requests = [Request(model, parts, seed) for seed, parts in enumerate(REQUESTS.values())]
    longest = max(len(request.ids) for request in requests)
    prune = pruner(model, requests, longest + 5)
    ids = torch.zeros(len(requests), longest, dtype=torch.int32)
    for row, request in zip(ids, requests, strict=True):
        row[: len(request.ids)] = torch.tensor(request.ids)
    states = SimpleNamespace(all_token_ids=SimpleNamespace(gpu=ids))
    done, got = [0] * len(requests), [[rows[:0] for rows in request.rows] for request in requests]
    while any(begin < len(r.ids) for begin, r in zip(done, requests, strict=True)):
        # in another order than the rows of the states, as the scheduler's
        order = [n for n in (2, 0, 3, 1) if done[n] < len(requests[n].ids)]
        sizes = [min(chunk + n, len(requests[n].ids) - done[n]) for n in order]
        pieces, whose = [], []
        for n, size in zip(order, sizes, strict=True):
            for number, (feature, embeds) in enumerate(zip(requests[n].features, requests[n].embeds, strict=True)):
                offset = feature.mm_position.offset
                first, last = max(done[n] - offset, 0), min(done[n] + size - offset, len(embeds))
                if first < last:
                    pieces.append(embeds[first:last])
                    whose.append((n, number))
        batch = SimpleNamespace(
            req_ids=[str(n) for n in order],
            idx_mapping_np=np.array(order),
            prefill_len_np=np.array([len(requests[n].ids) for n in order]),
            num_computed_prefill_tokens_np=np.array([done[n] for n in order]),
            num_scheduled_tokens=np.array(sizes),
        )
        cleaned = prune.recompute(pieces, batch, states)
        for (n, number), piece, rows in zip(whose, pieces, cleaned, strict=True):
            got[n][number] = torch.cat([got[n][number], rows])
            assert torch.equal(prune.strip([piece])[0], rows[:, :WIDTH])  # what a draft model is given
        for n, size in zip(order, sizes, strict=True):
            done[n] += size
    for n, request in enumerate(requests):
        assert torch.equal(prune.rope_state.read_prefill_positions(n, len(request.ids)).long(), request.positions)
        assert prune.rope_state.prefill_delta.np[n] == request.delta
        for rows, wanted in zip(got[n], request.rows, strict=True):
            assert torch.equal(rows, wanted)


def test_the_runner_makes_the_pruner_for_our_models(model: Any) -> None:
    """What it asks of a model and of the configuration."""
    from vllm.v1.worker.gpu.mm.rope import RopeState
    from vllm.v1.worker.gpu.model_states.mm_pruning import maybe_create_mm_pruner

    multimodal = SimpleNamespace(is_multimodal_pruning_enabled=lambda: True)
    config: Any = SimpleNamespace(multimodal_config=multimodal, get_inputs_embeds_size=lambda: WIDTH)
    state: Any = RopeState.__new__(RopeState)
    assert maybe_create_mm_pruner(config, model, state, SimpleNamespace()) is not None  # type: ignore[arg-type]
