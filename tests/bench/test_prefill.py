"""bench.prefill: that what it times is the real thing, that its arithmetic is right, and that it can be stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

import bench.prefill.measure
import score_ext
from bench.prefill.__main__ import _measure, main
from bench.prefill.baselines import BASELINES, evs_index, evs_scores, vidcom2_index, vidcom2_scores
from bench.prefill.findings import rows, targets
from bench.prefill.geometry import GEOMETRIES, QUICK, REAL, Geometry, prefill_flops
from bench.prefill.measure import POLICY, Bench, Job, Recipe, all_jobs
from bench.prefill.model import Workload, make_model, make_workload
from bench.prefill.report import section, write_document
from bench.prefill.results import Results, describe_run, open_results
from score_ext.budget import keep_count
from score_video.compressor import Compressor, Selected
from score_video.methods import _closeness, _least_varying_half, find_method
from score_video.mllm import encode_inputs
from score_video.policy import SurprisePolicy, SurprisePolicyConfig

CPU = torch.device("cpu")
SHAPE = (32, 2, 2)
by_family = pytest.mark.parametrize("geometry", QUICK, ids=lambda geometry: geometry.family)


def workload(geometry: Geometry) -> Workload:
    torch.manual_seed(0)
    return make_workload(make_model(geometry, CPU), geometry, SHAPE, CPU)


# ---- what is timed is the real thing ----


@by_family
def test_the_prompt_is_what_the_real_path_makes(geometry: Geometry) -> None:
    with torch.no_grad():
        ours = workload(geometry)
        pixels = ours.vision(SHAPE[0]).inputs(SHAPE[0])
        real = encode_inputs(ours.model, {**ours.inputs, **pixels})
    assert real is not None
    assert torch.equal(ours.encoded.prompt.input_ids, real.prompt.input_ids)
    assert torch.equal(ours.encoded.prompt.position_ids, real.prompt.position_ids)
    assert torch.equal(ours.encoded.visuals.features.placeholders, real.visuals.features.placeholders)
    for name in ("cu_seqlens", "tokens_per_frame", "columns"):
        assert torch.equal(getattr(ours.encoded.visuals.videos, name), getattr(real.visuals.videos, name))
    mine, theirs = ours.encoded.visuals, real.visuals
    assert mine.videos.tokens.shape == theirs.videos.tokens.shape
    assert mine.videos.tokens.dtype == theirs.videos.tokens.dtype == torch.bfloat16
    assert [level.shape for level in mine.features.deepstack] == [level.shape for level in theirs.features.deepstack]
    assert (mine.fixed is None) == (theirs.fixed is None)
    if mine.fixed is not None and theirs.fixed is not None:
        assert torch.equal(mine.fixed.rows, theirs.fixed.rows)
        assert torch.equal(mine.fixed.placeholders, theirs.fixed.placeholders)
    assert dict(real.others).keys() == dict(ours.encoded.others).keys()


@by_family
def test_vision_in_chunks_of_frames_gives_the_same_features(geometry: Geometry) -> None:
    with torch.no_grad():
        ours = workload(geometry)
        vision = ours.vision(4)
        whole = torch.cat(list(vision.features(4).pooler_output)).float()
        halves = torch.cat(list(vision.features(2).pooler_output)).float()
    first = 2 * SHAPE[1] * SHAPE[2]
    torch.testing.assert_close(whole.view(-1, geometry.width)[:first], halves.view(-1, geometry.width)[:first])


@by_family
def test_all_methods_keep_equal_counts_and_the_prompt_shrinks_by_what_is_dropped(geometry: Geometry) -> None:
    with torch.no_grad():
        ours = workload(geometry)
        whole = ours.encoded.prompt.input_ids.shape[1]
        policy = SurprisePolicy(SurprisePolicyConfig(token_width=geometry.width))
        for retention in (0.25, 0.1, 0.05):
            keep = keep_count(SHAPE[0], SHAPE[1] * SHAPE[2], retention)
            chosen = [Compressor(policy, retention).select(ours.encoded.visuals.videos).index]
            chosen += [baseline.index(baseline.scores(ours.frames), keep) for baseline in BASELINES]
            for index in chosen:
                assert len(index) == keep and bool((index.diff() > 0).all())
                inputs = ours.encoded.compress(Selected(index, torch.tensor([keep], dtype=torch.int32)))
                assert inputs["attention_mask"].shape[1] == whole - 128 + keep
                assert ours.model(**inputs, logits_to_keep=1, use_cache=True).logits.shape == (1, 1, 100)


# ---- arithmetic ----


@pytest.mark.parametrize("geometry", REAL, ids=lambda geometry: geometry.name)
def test_parameters_of_the_layers_are_those_of_the_model(geometry: Geometry) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(geometry.config())
    layers: Any = model.model.language_model.layers
    matrices = [module for module in layers.modules() if isinstance(module, torch.nn.Linear)]
    assert sum(matrix.weight.numel() for matrix in matrices) == geometry.linear_parameters
    assert model.lm_head.weight.shape == (geometry.text["vocab_size"], geometry.width)


@by_family
def test_flops_are_those_that_torch_counts(geometry: Geometry) -> None:
    with torch.no_grad():
        ours = workload(geometry)
        ours.model.set_attn_implementation("eager")
        kept = torch.arange(128)
        inputs = ours.encoded.compress(Selected(kept, torch.tensor([128], dtype=torch.int32)))
        with FlopCounterMode(display=False) as counter:
            ours.model(**inputs, logits_to_keep=1, use_cache=True)
    counts = counter.get_flop_counts()
    rotary = sum(sum(of.values()) for module, of in counts.items() if module.endswith("rotary_emb"))
    prompt = inputs["attention_mask"].shape[1]
    # eager attention does the half above the diagonal too
    above = (
        2 * prompt**2 * geometry.text["num_attention_heads"] * geometry.head_dim * geometry.text["num_hidden_layers"]
    )
    assert counter.get_total_flops() - rotary == prefill_flops(geometry, prompt) + above


videos = st.tuples(st.integers(2, 8), st.integers(1, 9), st.integers(2, 24), st.integers(0, 2**31))


def random_video(shape: tuple[int, int, int, int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """[T, N, D], and the arguments of our methods that pack it."""
    frames, per_frame, width, seed = shape
    tokens = torch.randn(frames, per_frame, width, generator=torch.Generator().manual_seed(seed))
    ends = torch.tensor([0, frames * per_frame], dtype=torch.int32)
    return tokens, [tokens.flatten(0, 1), ends, torch.tensor([per_frame], dtype=torch.int32)]


@settings(max_examples=60, deadline=None)
@given(videos, st.floats(0, 1))
def test_evs_keeps_what_our_method_keeps_once_the_first_frame_fits(
    shape: tuple[int, int, int, int], part: float
) -> None:
    frames, per_frame = shape[:2]
    keep = per_frame + int(part * (frames - 1) * per_frame)
    tokens, packed = random_video(shape)
    ours = find_method("evs").index(*packed, torch.tensor([keep], dtype=torch.int32))
    theirs = evs_index(evs_scores(tokens), keep)
    # rounding may swap two that are nearly equal
    surprise = score_ext.surprise(*packed)
    torch.testing.assert_close(surprise[theirs].sort().values, surprise[ours].sort().values, rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(videos, st.floats(0, 1))
def test_vidcom2_keeps_the_least_typical_of_each_frame(shape: tuple[int, int, int, int], part: float) -> None:
    frames, per_frame = shape[:2]
    keep = frames + int(part * frames * (per_frame - 1))
    tokens, packed = random_video(shape)
    scores = vidcom2_scores(tokens)
    index = vidcom2_index(scores, keep)
    assert len(index) == keep
    half = _least_varying_half(packed[0]).view(frames, per_frame, -1)
    centres = half.mean((0, 1), keepdim=True), half.mean(1, keepdim=True)
    typicality = torch.stack([_closeness(half, centre) for centre in centres])
    torch.testing.assert_close(scores, typicality, rtol=1e-4, atol=1e-4)
    kept = torch.zeros(frames, per_frame, dtype=torch.bool)
    kept.view(-1)[index] = True
    for row, chosen in zip(scores.sum(0), kept, strict=True):
        if chosen.any() and not chosen.all():
            assert row[chosen].max() <= row[~chosen].min()


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(2, 8), st.integers(8, 16), st.integers(2, 24), st.integers(0, 2**31)))
def test_vidcom2_shares_the_budget_as_our_method_does(shape: tuple[int, int, int, int]) -> None:
    frames, per_frame = shape[:2]
    keep = frames * per_frame // 4
    tokens, packed = random_video(shape)
    ours = find_method("vidcom2").index(*packed, torch.tensor([keep], dtype=torch.int32)) // per_frame
    theirs = vidcom2_index(vidcom2_scores(tokens), keep) // per_frame
    counts = [index.bincount(minlength=frames) for index in (ours, theirs)]
    # the engine settles what rounding left over by typicality, we by what each frame is due
    assert int((counts[0] - counts[1]).abs().max()) <= 1 + frames // 2


# ---- the program ----


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefill")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.prefill.__main__.tempfile.mkdtemp", lambda prefix: str(folder))
        main(only=None, vision=True, fresh=False, quick=True)
    return folder


def test_every_record_is_there_with_every_repeat(written: Path) -> None:
    results = json.loads((written / "prefill-cpu.json").read_text())
    run, records = results["run"], results["records"]
    assert run["threads"] == torch.get_num_threads() and run["seed"] == 0 and run["dtype"] == "bfloat16"
    assert {"cpu", "date", "torch", "transformers", "commit"} < run.keys()
    assert run["geometries"] == [geometry.name for geometry in QUICK]
    for geometry in QUICK:
        for retention in (1.0, 0.25, 0.1, 0.05):
            keys = [f"prefill/{retention}"]
            if retention < 1:
                keys += [
                    f"select/policy/{retention}",
                    *(f"compress/{m}/{retention}" for m in (POLICY, "EVS", "VidCom2")),
                ]
            for key in keys:
                record = records.pop(f"{geometry.name}/128/{key}")
                assert record["kept"] == keep_count(*SHAPE[:1], 4, retention)
                check_times(record, run["repeats"])
        check_times(records.pop(f"{geometry.name}/128/positions"), run["repeats"])
        vision = records.pop(f"{geometry.name}/128/vision")
        assert vision["frames_per_call"] == SHAPE[0]
        check_times(vision, 3)
    assert not records


def check_times(record: dict[str, Any], repeats: int) -> None:
    assert len(record["seconds"]) == repeats and min(record["seconds"]) > 0
    assert record["peak_bytes"] >= record["extra_bytes"] >= 0
    assert record["load"] >= 0


def test_the_document_has_a_table_and_a_figure_and_claims_nothing_of_gpus(written: Path) -> None:
    text = (written / "prefill.md").read_text()
    for geometry in QUICK:
        assert f"### {geometry.name}" in text
    assert "No GPU has run this yet" in text and "(prefill-cpu.png)" in text
    assert "None" not in text and "not reached" not in text
    assert (written / "prefill-cpu.png").read_bytes().startswith(b"\x89PNG")
    assert not list((written / "under-way").iterdir())


def small_recipe(**changes: Any) -> Recipe:
    recipe = {"geometries": QUICK[:1], "retentions": (1.0, 0.1), "warmups": 1, "repeats": 1}
    return Recipe(**{**recipe, "compiled": False, "vision": False, **changes})


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    recipe = small_recipe()
    path, run = tmp_path / "run.json", describe_run(recipe, CPU)
    jobs = all_jobs(recipe)
    done = {job.key: {"seconds": [7.0], "load": 0.0} for job in jobs[:-1]}
    Results(run, done).save(path)
    results = open_results(path, run)
    _measure(recipe, CPU, results, path)
    saved = Results.load(path)
    assert list(saved.records) == [job.key for job in jobs]
    assert {key: saved.records[key] for key in done} == done
    assert saved.records[jobs[-1].key]["seconds"] != [7.0]


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    path, run = tmp_path / "run.json", describe_run(small_recipe(), CPU)
    Results({**run, "date": "yesterday"}).save(path)
    assert open_results(path, run).run["date"] == "yesterday"
    with pytest.raises(ValueError, match=r"run\.json is of a run with repeats 1, this one has 5: --fresh begins anew"):
        open_results(path, {**run, "repeats": 5})


def test_what_does_not_fit_is_noted_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def too_large_at_first(*arguments: Any) -> Workload:
        made.append(arguments)
        if len(made) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make_workload(*arguments)

    monkeypatch.setattr(bench.prefill.measure, "make_workload", too_large_at_first)
    recipe = small_recipe()
    records = {job.key: record for job, record in Bench(recipe, CPU).run(all_jobs(recipe))}
    failed = [key for key, record in records.items() if record.get("failed") == "out of memory"]
    assert failed == ["Qwen2.5-VL tiny/128/prefill/1.0"]
    assert len(made) == 2
    text = section(Results(describe_run(recipe, CPU), records), "figure.png")
    assert "| 128 | 100% |  |  | out of memory |" in text and "128/prefill/1.0: out of memory." in text


def test_vision_that_does_not_fit_runs_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    real = Workload.vision

    def vision(self: Workload, frames_per_call: int) -> Any:
        tried.append(frames_per_call)
        if frames_per_call > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, frames_per_call)

    monkeypatch.setattr(Workload, "vision", vision)
    recipe = small_recipe(vision=True)
    ((_, record),) = Bench(recipe, CPU).run([Job(QUICK[0], 128, "vision")])
    assert tried == [32, 16, 8] and record["frames_per_call"] == 8 and len(record["seconds"]) == 3


# ---- what follows ----


def invented(geometry: Geometry, tokens: int, prefill: float, compress: float, **run: Any) -> Results:
    """Full prefill 1.7 s, vision 0.5 s, positions 0.05 s; one retention, 10%."""
    times = {
        Job(geometry, tokens, "prefill", 1.0): (1.7, {"prompt": 40_066, "kept": 40_000, "peak_bytes": 10**9}),
        Job(geometry, tokens, "prefill", 0.1): (prefill, {"prompt": 4_066, "kept": 4_000, "kernel": "cudnn"}),
        Job(geometry, tokens, "compress", 0.1, POLICY): (compress, {}),
        Job(geometry, tokens, "compress", 0.1, "EVS"): (0.004, {}),
        Job(geometry, tokens, "compress", 0.1, "EVS, compiled"): (0.002, {}),
        Job(geometry, tokens, "positions"): (0.05, {}),
        Job(geometry, tokens, "vision"): (0.5, {}),
    }
    records = {job.key: {"seconds": [t, 0.9 * t, 1.1 * t], "load": 1.0, **more} for job, (t, more) in times.items()}
    description = describe_run(small_recipe(geometries=(geometry,)), CPU)
    return Results({**description, **run}, records)


def test_speed_ups_and_shares() -> None:
    geometry = GEOMETRIES["Qwen2.5-VL 7B"]
    results = invented(geometry, 40_000, prefill=0.099, compress=0.001)
    row = next(row for row in rows(results, geometry) if (row.tokens, row.retention) == (40_000, 0.1))
    assert row.speed_up() == pytest.approx(17)
    assert row.speed_up("EVS") == pytest.approx(1.7 / 0.101)
    assert row.speed_up("VidCom2") is None
    assert row.share == pytest.approx(1 / 99)
    assert row.first_token == pytest.approx(0.65)
    assert row.first_token_speed_up == pytest.approx(2.25 / 0.65)
    assert row.predicted == pytest.approx(15.0, abs=0.02)
    assert row.prefill is not None and row.prefill.spread == pytest.approx(0.1 * 0.099)


@pytest.mark.parametrize(
    ("prefill", "compress", "reached"), [(0.099, 0.0009, (True, True)), (0.2, 0.002, (False, False))]
)
def test_targets(prefill: float, compress: float, reached: tuple[bool, bool]) -> None:
    geometry = GEOMETRIES["Qwen2.5-VL 7B"]
    found = targets(invented(geometry, 40_000, prefill, compress), geometry)
    assert tuple(hit for _, _, hit in found) == reached
    assert targets(invented(QUICK[0], 128, 0.1, 0.1), QUICK[0]) == []


def test_a_gpu_section_appears_with_its_results(tmp_path: Path) -> None:
    gpu = invented(GEOMETRIES["Qwen2.5-VL 7B"], 40_000, 0.099, 0.0009, gpu="NVIDIA Test", gpu_bytes=2**37, cuda="13.0")
    write_document([("prefill-cpu", invented(QUICK[0], 128, 0.1, 0.1)), ("prefill-gpu-test", gpu)], tmp_path)
    text = (tmp_path / "prefill.md").read_text()
    assert "No GPU has run this" not in text
    assert text.index("## NVIDIA Test") < text.index("## CPU: ")
    assert "the compressor counted in: **17.0x**, reached." in text
    assert "(128 GiB), CUDA 13.0" in text and "Attention ran in torch's kernels: cudnn." in text
    assert (tmp_path / "prefill-gpu-test.png").exists()
