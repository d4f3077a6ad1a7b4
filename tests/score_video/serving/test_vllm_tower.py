"""vLLM's own vision towers on a part of a video: equal to the stock tower with all other patches masked out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from bare_models import RATE, Inputs, bare_model
from engines import needs_vllm
from helpers.waits import Waits
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from towers import MERGE, SIDE, masked, one_process, pixels_of, tower_of

from score_ext.budget import evs_count, keep_count
from score_video.before_tower import Gate, Seen
from score_video.compressor import Compressor
from score_video.packed import PackedVideos

pytestmark = [needs_vllm, pytest.mark.usefixtures("without_gradients")]

GRID = (5, 10, 14)  # of patches; windows at the edges are not full
TOKENS = 5 * 5 * 7
ARCHITECTURES = {
    "Qwen2_5_VisionTransformer": "Qwen2_5_VLForConditionalGeneration",
    "Qwen3_VisionTransformer": "Qwen3VLForConditionalGeneration",
}


@pytest.fixture(scope="module")
def engine_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with one_process(tmp_path_factory.mktemp("one")):
        yield


@pytest.fixture
def without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=sorted(SIDE))
def tower(request: pytest.FixtureRequest, engine_parts: None) -> Any:
    return tower_of(request.param)


def some(share: float) -> Tensor:
    return (torch.rand(TOKENS, generator=torch.Generator().manual_seed(3)) < share).nonzero()[:, 0]


CASES: dict[str, Callable[[], Tensor]] = {
    "half": lambda: some(0.5),
    "a tenth": lambda: some(0.1),
    "one token": lambda: torch.tensor([TOKENS // 2]),
    "frames without any": lambda: torch.cat([torch.arange(3, 9), torch.arange(TOKENS - 7, TOKENS)]),
    "corners of windows": lambda: torch.arange(0, TOKENS, 6),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_stock_tower_with_the_others_masked(tower: Any, case: str) -> None:
    from score_video.serving.vllm_tower import run_part

    pixels, encoded = pixels_of(tower, GRID), CASES[case]()
    rows = run_part(tower, pixels, GRID, encoded)
    with masked(tower, GRID, encoded):
        want = tower(pixels, [list(GRID)])[encoded]
    assert rows.shape == (len(encoded), tower.out_hidden_size)
    torch.testing.assert_close(rows, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))
    if case == "a tenth":  # and it matters what is masked
        whole = tower(pixels, [list(GRID)])[encoded]
        assert (rows - whole).abs().max() > 0.05 * whole.abs().max()


@pytest.mark.parametrize("grid", [GRID, (1, 4, 4), (3, 8, 8)])
def test_everything_kept_is_what_the_tower_tells_itself(tower: Any, grid: tuple[int, int, int]) -> None:
    from score_video.serving.vllm_tower import METADATA, run_part

    everything = torch.arange(grid[0] * grid[1] * grid[2] // MERGE**2)
    own = tower.prepare_encoder_metadata([list(grid)])
    ours = METADATA[type(tower).__name__](tower, grid, everything.numpy(), torch.device("cpu"))
    assert ours.keys() == own.keys()
    for name, value in own.items():
        assert ours[name] is None if value is None else torch.equal(ours[name], value), name
        assert value is None or ours[name].dtype == value.dtype, name
    pixels = pixels_of(tower, grid)
    assert torch.equal(run_part(tower, pixels, grid, everything), tower(pixels, [list(grid)]))


def model_of(tower: Any, compressor: Compressor) -> Any:
    """One of the plugin's, without a language model."""
    model = bare_model(ARCHITECTURES[type(tower).__name__], compressor)
    model.visual, model.visual_dim = tower, 48
    model.get_language_model = lambda: torch.nn.Module()
    model.get_language_model().embed_input_ids = lambda ids: torch.zeros(len(ids), 48)
    model._placed = lambda rows, index, grid, when: (rows, index)
    return model


def inputs_of(tower: Any, grids: list[tuple[int, int, int]]) -> Inputs:
    pixels = torch.cat([pixels_of(tower, grid, seed) for seed, grid in enumerate(grids)])
    found = Inputs(type="pixel_values_videos", pixel_values_videos=pixels, video_grid_thw=torch.tensor(grids))
    found["second_per_grid_ts"] = torch.ones(len(grids))
    found.timestamps = [[0.5 * step for step in range(grid[0])] for grid in grids]
    return found


GRIDS = [GRID, (4, 8, 8)]


@pytest.mark.parametrize("method", ["divprune", "norm", "surprise"])
@pytest.mark.parametrize("halo", [0, 1])
def test_keeps_what_is_best_of_what_the_gate_let_through(tower: Any, halo: int, method: str) -> None:
    """From pixels to rows, of two videos in one call, against the same put together from the parts by hand."""
    gate = Compressor("evs-dithered", 0.5)
    model, inputs = model_of(tower, Compressor(method, 0.25, before_tower=gate, halo=halo)), inputs_of(tower, GRIDS)
    videos = model._process_video_input(inputs)
    kept = model._postprocess_video_embeds_evs(videos, inputs)
    parts = inputs["pixel_values_videos"].split([t * h * w for t, h, w in GRIDS])
    for (rows, index), video, pixels, (t, h, w) in zip(kept, videos, parts, GRIDS, strict=True):
        grid = (t, h // MERGE, w // MERGE)
        seen = Gate(gate, halo, "evs-dithered").choose(thumbnails_by_hand(pixels, tower.patch_size, grid))
        assert torch.equal(video.seen.kept.index, seen.kept.index)
        assert video.seen.counts == (keep_count(t, h * w // MERGE**2, 0.5),)
        assert torch.equal(video.seen.encoded, seen.encoded)
        with masked(tower, (t, h, w), seen.encoded):
            features = tower(pixels, [[t, h, w]])
        torch.testing.assert_close(rows, features[index], rtol=1e-4, atol=1e-5 * float(features.abs().max()))
        dense = PackedVideos.from_grids(video.dense(48), [grid])
        wanted = Compressor(method, 0.25).select_seen(dense, Seen(seen.kept, seen.encoded), keep=[len(index)])
        assert torch.equal(index, wanted.index)
        assert len(index) == evs_count(t, h * w // MERGE**2, RATE)


def thumbnails_by_hand(pixels: Tensor, side: int, grid: tuple[int, int, int]) -> PackedVideos:
    """2 x 2 cells of each patch in three colours, over its two frames; each colour of mean 0 and deviation 1."""
    cells = pixels.view(-1, MERGE**2, 3, 2, 2, side // 2, 2, side // 2).mean((3, 5, 7))  # [L, P, 3, 2, 2]
    mean, deviation = (f(cells.transpose(0, 2).flatten(1)) for f in (lambda x: x.mean(1), lambda x: x.std(1, False)))
    cells = (cells - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    return PackedVideos.from_grids(cells.transpose(1, 2).flatten(1), [grid])


def test_a_short_video_keeps_as_many_as_the_engine_has_counted(tower: Any) -> None:
    """A formula of vLLM's keeps at least a whole frame, where the gate's half of one frame is less."""
    compressor = Compressor("divprune", 0.25, before_tower=Compressor("uniform", 0.5))
    model, inputs = model_of(tower, compressor), inputs_of(tower, [(1, 8, 8)])
    ((_, index),) = model._postprocess_video_embeds_evs(model._process_video_input(inputs), inputs)
    assert index.tolist() == list(range(16))


def test_features_in_place_of_a_video_were_seen_whole(tower: Any) -> None:
    rows = torch.randn(TOKENS, tower.out_hidden_size, generator=torch.Generator().manual_seed(5))
    inputs = inputs_of(tower, [GRID])
    found = []
    for gate in (None, Compressor("uniform", 0.5)):
        model = model_of(tower, Compressor("divprune", 0.25, before_tower=gate))
        given = Inputs(inputs | {"type": "video_embeds", "video_embeds": rows})
        given.timestamps = inputs.timestamps
        found += model._postprocess_video_embeds_evs(model._process_video_input(given), given)
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("method", ["norm", "pretrained"])
def test_waits_once_for_all_videos(tower: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what the gates keep; what is worked out of it on the host does not count."""
    from score_video.serving import vllm_gate

    compressor = Compressor.from_pretrained(method, before_tower=Compressor("norm", 0.5), halo=1)
    model, inputs = model_of(tower, compressor), inputs_of(tower, GRIDS)
    model._process_video_input(inputs)  # vLLM remembers the windows of grids that it has seen
    on_host, to_cpu, moved = vllm_gate.around, torch.Tensor.cpu, []

    def uncounted(*arguments: Any) -> tuple[Tensor, Tensor]:
        with _disable_current_modes():
            return on_host(*arguments)

    monkeypatch.setattr(vllm_gate, "around", uncounted)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(tensor.shape) or to_cpu(tensor))
    with Waits() as waits:
        model._postprocess_video_embeds_evs(model._process_video_input(inputs), inputs)
    assert not waits.seen
    assert moved == [(sum(keep_count(t, h * w // MERGE**2, 0.5) for t, h, w in GRIDS),)]
