"""bench.prefill as a program: its records, how it is stopped and goes on, what it concludes and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.prefill.measure
from bench.prefill.__main__ import main, measure_all
from bench.prefill.findings import rows, targets
from bench.prefill.geometry import GEOMETRIES, QUICK, Geometry
from bench.prefill.measure import METHODS, POLICY, VISION_REPEATS, Bench, Job, Recipe, all_jobs
from bench.prefill.model import Workload, make_workload
from bench.prefill.report import section, write_document
from bench.prefill.results import Results, describe_run, open_results
from score_ext.budget import keep_count

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefill")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.prefill.__main__.tempfile.mkdtemp", lambda prefix: str(folder))
        main(only=None, vision=True, fresh=False, report=False, quick=True)
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
                    *(f"compress/{m}/{retention}" for m in METHODS),
                ]
            for key in keys:
                record = records.pop(f"{geometry.name}/128/{key}")
                assert record["kept"] == keep_count(32, 4, retention)
                check_times(record, run["repeats"])
        check_times(records.pop(f"{geometry.name}/128/positions"), run["repeats"])
        vision = records.pop(f"{geometry.name}/128/vision")
        assert vision["frames_per_call"] == 32
        check_times(vision, VISION_REPEATS)
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
    return Recipe(**{**recipe, "compiled": frozenset(), "vision": False, **changes})


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    recipe = small_recipe()
    path, run = tmp_path / "run.json", describe_run(recipe, CPU)
    jobs = all_jobs(recipe)
    done = {job.key: {"seconds": [7.0], "load": 0.0} for job in jobs[:-1]}
    Results(run, done).save(path)
    results = open_results(path, run)
    measure_all(recipe, CPU, results, path)
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


def test_what_failed_is_noted_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe()
    path, run = tmp_path / "run.json", describe_run(recipe, CPU)
    with monkeypatch.context() as patch:
        patch.setattr(Workload, "position_ids", lambda self: torch.empty(2) + torch.empty(3))
        results = Results(run)
        measure_all(recipe, CPU, results, path)
    failed = {key: record["failed"] for key, record in results.records.items() if "failed" in record}
    assert list(failed) == ["Qwen2.5-VL tiny/128/positions"] and "must match" in failed["Qwen2.5-VL tiny/128/positions"]
    others = {key: record for key, record in results.records.items() if key not in failed}
    measure_all(recipe, CPU, results, path)
    assert len(results.records["Qwen2.5-VL tiny/128/positions"]["seconds"]) == 1
    assert {key: results.records[key] for key in others} == others


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
    assert tried == [32, 16, 8]
    assert record["frames_per_call"] == 8 and len(record["seconds"]) == VISION_REPEATS


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
    assert tuple(hit for _, _, hit in found) == (*reached, False)
    assert found[-1][1] == "not measured"  # EVS's is at 8,192 tokens
    assert targets(invented(QUICK[0], 128, 0.1, 0.1), QUICK[0]) == []


@pytest.mark.parametrize(("compress", "ratio", "reached"), [(0.0058, "1.45x", True), (0.0062, "1.55x", False)])
def test_target_beside_evs_in_eager_torch(compress: float, ratio: str, reached: bool) -> None:
    geometry = GEOMETRIES["LLaVA-OneVision 7B"]
    ((what, measured, hit),) = targets(invented(geometry, 8_192, 0.1, compress), geometry)
    assert "8,192 tokens" in what and (measured, hit) == (ratio, reached)


def test_a_gpu_section_appears_with_its_results(tmp_path: Path) -> None:
    gpu = invented(GEOMETRIES["Qwen2.5-VL 7B"], 40_000, 0.099, 0.0009, gpu="NVIDIA Test", gpu_bytes=2**37, cuda="13.0")
    write_document([("prefill-cpu", invented(QUICK[0], 128, 0.1, 0.1)), ("prefill-gpu-test", gpu)], tmp_path)
    text = (tmp_path / "prefill.md").read_text()
    assert "No GPU has run this" not in text
    assert text.index("## NVIDIA Test") < text.index("## CPU: ")
    assert "the compressor counted in: **17.0x**, reached." in text
    assert "(128 GiB), CUDA 13.0" in text and "Attention ran in torch's kernels: cudnn." in text
    assert (tmp_path / "prefill-gpu-test.png").exists()
