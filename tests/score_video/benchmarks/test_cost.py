"""What a dry run says: downloads, and floating-point operations against those that are counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.saved_square_models import save_square_model
from torch.utils.flop_counter import FlopCounterMode

from score_video.benchmarks.config import comparison
from score_video.benchmarks.cost import FRAME, Work, download_of, estimate, questions_of, work_of
from score_video.benchmarks.runs import FULL, Run, Settings
from score_video.mllm.conversation import chat_text, clip_of_frames, processor_inputs
from score_video.mllm.load import load_model, load_processor

WHOLE = Run("m", FULL, None)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_work_against_counted_flops(family: str, saved_qwen: Path, tmp_path: Path) -> None:
    """Without attention, which counters of FLOPs see or not, by kernel. About: parameters that few tokens meet
    (mergers, pooling, positions) are a large part of models so small."""
    folder = saved_qwen
    if family != "qwen2_5_vl":
        folder = tmp_path / family
        save_square_model(folder, family)
    work = work_of(str(folder), 4)
    model, processor = load_model(str(folder), torch.device("cpu"), torch.float32), load_processor(str(folder))
    text = chat_text(processor, "What happens in this video?")
    inputs = processor_inputs(processor, clip_of_frames(torch.zeros(4, *FRAME, 3), 1.0), text)
    assert work.tokens + work.text == inputs["input_ids"].shape[1]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs, logits_to_keep=1)
    by_operator = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}
    products = sum(flops for name, flops in by_operator.items() if "attention" not in name and "bmm" not in name)
    linear = work.flops(WHOLE) - 2 * (work.tokens + work.text) ** 2 * work.width * work.layers
    assert products < linear < 1.5 * products


def test_flops_of_runs() -> None:
    work = Work(patches=4000, tokens=1000, text=0, tower=10, decoder=100, width=0, layers=0)
    assert work.flops(WHOLE) == 2 * (10 * 4000 + 100 * 1000)
    assert work.flops(Run("m", "evs", 0.1)) == 2 * (10 * 4000 + 100 * 100)  # the tower sees all
    assert work.flops(Run("m", "resize", 0.1)) == 2 * (10 * 400 + 100 * 100)
    attention = Work(0, 100, 20, 0, 0, width=8, layers=2)
    assert attention.flops(WHOLE) == 4 * 120**2 / 2 * 8 * 2  # two products over the causal half


def test_how_many_questions() -> None:
    assert questions_of(Settings(("videomme", "mlvu_test"))) == 2700 + 502
    assert questions_of(Settings(("videomme", "mlvu_test"), limit=1000)) == 1000 + 502
    assert questions_of(Settings(("own",), limit=7)) == 7
    assert questions_of(Settings(("own",))) is None


def test_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"model.safetensors": 4_000_000_000, "pytorch_model.bin": 4_000_000_000, "config.json": 1000}

    def repo_info(self: object, source: str, *, repo_type: str, files_metadata: bool) -> object:
        assert files_metadata
        if source == "not/there":
            raise OSError
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n, size=s) for n, s in files.items()])

    cached = SimpleNamespace(repo_id="a/b", repo_type="model", size_on_disk=1_000_000_000)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", repo_info)
    monkeypatch.setattr("huggingface_hub.scan_cache_dir", lambda: SimpleNamespace(repos=[cached]))
    assert download_of("a/b", "model") == "4.0 GB, 1.0 GB in the cache"
    assert download_of("a/b", "dataset") == "8.0 GB, 0.0 GB in the cache"
    assert download_of("not/there", "model") == "0.0 GB in the cache; the hub does not tell its size (OSError)"
    assert download_of(str(tmp_path), "model") == "is here"


def test_estimate(saved_qwen: Path) -> None:
    given = {"model": [str(saved_qwen)], "task": ["own"], "limit": 5, "model_args": "max_num_frames=2"}
    text = estimate(comparison(given), teraflops=1e-6)
    work = work_of(str(saved_qwen), 2)
    each = work.flops(WHOLE) + work.flops(Run("m", "pretrained", 0.1))
    assert f"{work.tokens} visual tokens" in text
    assert f"5 questions, {each * 5 / 1e6 / 3600:,.2f} hours" in text
    assert "is here" in text
    assert "not known (" in estimate(comparison({**given, "model": ["nowhere"]}))
