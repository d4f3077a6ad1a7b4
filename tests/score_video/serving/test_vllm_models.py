"""The plugin's models with tensors of ours: what they hand to vLLM for a video, and that the step waits for nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bare_models import END, RATE, START, WIDTH, Inputs, Tokenizer, bare_model, merged, tokens_of
from engines import needs_vllm, save_policy
from helpers.waits import Waits

from score_ext.budget import evs_count
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.packed import PackedVideos

pytestmark = needs_vllm

GRID, TIMES = (5, 6, 8), [0.2, 1.0, 1.8, 2.6, 10.4]
RUN, TIMED = "Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration"


def test_waits_are_counted() -> None:
    tokens = torch.arange(6.0)
    with Waits() as waits:
        tokens.sum().item(), tokens[tokens > 2], tokens.nonzero(), bool(tokens[0] > 2)
    assert waits.seen["_local_scalar_dense"] >= 2
    assert waits.seen["index"] == waits.seen["nonzero"] == 1


def embed(model: Any, tokens: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """What the model hands to vLLM for a video."""
    inputs = Inputs(video_grid_thw=torch.tensor([grid]), second_per_grid_ts=torch.tensor([0.5]))
    inputs.timestamps = [TIMES]
    (rows,) = model._postprocess_video_embeds_evs([tokens], inputs)
    found: torch.Tensor = rows
    return found


@pytest.fixture(params=["surprise", "norm", "residual policy", "pretrained"])
def compressor(request: pytest.FixtureRequest, tmp_path: Path) -> Compressor:
    if request.param == "residual policy":
        return Compressor.from_pretrained(save_policy(tmp_path / "policy", token_width=WIDTH))
    return Compressor.from_pretrained(request.param)


@pytest.mark.parametrize("architecture", [RUN, TIMED])
def test_a_video_s_step_waits_for_nothing(architecture: str, compressor: Compressor) -> None:
    model, tokens = bare_model(architecture, compressor), tokens_of(GRID, 0)
    with Waits() as waits:
        embed(model, tokens, GRID)
    assert not waits.seen


def test_frames_between_their_times() -> None:
    """Against the prompt put together by hand, with a frame of which nothing is kept."""
    from score_video.serving.vllm_positions import split_places

    model, tokens = bare_model(TIMED, Compressor("surprise")), tokens_of(GRID, 1, levels=2)
    tokens.view(5, -1)[2] = tokens.view(5, -1)[1]  # the third frame shows nothing new
    frames, columns = tokens[:, :WIDTH].reshape(5, 3, 4, WIDTH), 4
    keep = evs_count(5, 12, RATE)
    kept = set(Compressor("surprise").select(PackedVideos.from_frames([frames]), keep=[keep]).index.tolist())
    assert not kept & set(range(24, 36))
    table = model.get_language_model().embed_input_ids(torch.arange(200))
    rows, places, position = [], [], 0
    for frame, time in enumerate(TIMES):
        ids = [*Tokenizer().encode(f"<{time:.1f} seconds>"), START]
        for token in ids:
            rows.append(torch.cat([table[token], torch.zeros(2 * WIDTH)]))
            places.append([position] * 3)
            position += 1
        for number in range(12):
            if frame * 12 + number in kept:
                rows.append(tokens[frame * 12 + number])
                places.append([position, position + number // columns, position + number % columns])
        position += 4  # the longer side of 3 x 4
        rows.append(torch.cat([table[END], torch.zeros(2 * WIDTH)]))
        places.append([position] * 3)
        position += 1
    got, got_places = split_places(embed(model, tokens, GRID))
    assert torch.equal(got, torch.stack(rows))
    assert got_places[:, :3].tolist() == places
    assert got_places[:, 3].tolist() == list(range(len(rows)))
    assert got_places[:, 4].unique().tolist() == [len(Tokenizer().encode("<0.2 seconds>")) + 1]


@pytest.mark.parametrize(
    ("architecture", "method", "count"),
    [
        (RUN, "evs", 12),
        (RUN, "vidcom2", 12),
        (TIMED, "evs", 12),
        (TIMED, "vidcom2", 5),
        ("NemotronH_Nano_VL_V2", "vidcom2", 12),
    ],
)
def test_counts_as_vllm_s_processor_of_such_models(
    architecture: str, method: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Qwen2.5-VL and of Nemotron counts by EVS, whatever --video-pruning-method is."""
    from score_video.serving import vllm_base, vllm_models

    class Stock:
        def __init__(self, **given: Any) -> None: ...

    kind = vllm_models._KINDS[vllm_models.ARCHITECTURES[architecture].kind]
    made: Any = type("Made", (kind, Stock), {})
    monkeypatch.setenv("SCORE_VIDEO_COMPRESSOR", "surprise")
    monkeypatch.setattr(vllm_base, "get_tensor_model_parallel_rank", lambda: 0)
    multimodal = SimpleNamespace(get_video_pruning_spec=lambda: (method, 0.9))
    config = SimpleNamespace(model_config=SimpleNamespace(multimodal_config=multimodal, uses_mrope=True))
    assert made(vllm_config=config)._count(12, 5) == count


def test_nemotron_is_given_a_mask() -> None:
    """vLLM's own function for a video, on frames of two sizes of patches; what it puts together is looked at."""
    model = bare_model("NemotronH_Nano_VL_V2", Compressor("surprise"))
    tokens = torch.randn(6 * 12, WIDTH, generator=torch.Generator().manual_seed(3))
    model.video_temporal_patch_size, model.video_pruning_rate = 1, RATE
    model.config.downsample_ratio, model.config.patch_size = 0.5, 4
    model._process_image_input = lambda inputs: (tokens,)
    made: list[Any] = []

    def put_together(rows: torch.Tensor, per_frame: list[int], *others: Any, **named: Any) -> torch.Tensor:
        made.append((rows, per_frame))
        return rows

    model._create_final_video_embeddings = put_together
    pixels = SimpleNamespace(shape=(6, 3, 24, 32))
    inputs = {
        "pixel_values_flat": pixels,
        "num_patches": torch.tensor([6]),
        "frames_indices": torch.arange(6),
        "frame_duration_ms": torch.tensor([500]),
    }
    (rows,) = model._process_video_input(inputs)
    keep = evs_count(6, 12, RATE)
    videos = PackedVideos.from_frames([tokens.view(6, 3, 4, WIDTH)])
    index = Compressor("surprise").select(videos, keep=[keep]).index
    assert torch.equal(rows, tokens[index])
    assert made[0][1] == torch.bincount(index // 12, minlength=6).tolist()
    from vllm.model_executor.models import nano_nemotron_vl

    assert nano_nemotron_vl.compute_retention_mask != model._mask  # put back


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ColQwen3", "it makes embeddings of a whole prompt and answers no questions"),
        ("CohereCompassForConditionalGeneration", "vLLM's takes images and no videos"),
    ],
)
def test_refuses_by_name(name: str, said: str) -> None:
    from score_video.serving import vllm_models

    multimodal = SimpleNamespace(get_video_pruning_spec=lambda: ("evs", RATE))
    config = SimpleNamespace(model_config=SimpleNamespace(multimodal_config=multimodal))
    with pytest.raises(ScoreError, match=f"does not compress videos for {name}: {said}. Serve it without"):
        getattr(vllm_models, name)(vllm_config=config)


def test_images_of_models_that_count_positions_in_the_prompt_get_no_places() -> None:
    model, image = bare_model("Exaone4_5_ForConditionalGeneration", Compressor("surprise")), (1, 4, 6)
    model._positions_are_kept = False
    assert model._postprocess_image_embeds_evs([rows := tokens_of(image, 0)], {})[0] is rows
    kept = embed(model, tokens_of(GRID, 2), GRID)
    assert kept.shape == (evs_count(5, merged(GRID) // 5, RATE), WIDTH)
