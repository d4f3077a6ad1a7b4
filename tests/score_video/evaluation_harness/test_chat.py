"""The chat model ``score`` under lmms-eval itself: answers as of its own classes, and a record of each sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.saved_square_models import FAMILIES, save_square_model

pytest.importorskip("lmms_eval", reason="tools/eval.sh has lmms-eval")

from lmms_eval import evaluator
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager

from score_ext.budget import keep_count
from score_video import Compressor
from score_video.errors import ScoreError
from score_video.mllm.conversation import chat_text, processor_inputs, read_clip
from score_video.mllm.load import load_model, load_processor

FRAMES = 8
SMALL = 4 * 28 * 28
"""Pixels of a frame at least, which lmms-eval's class scales up to: its default are 256 tokens."""
PHASES = {"read", "vision tower", "compression", "prefill", "first token", "answer"}


def samples(model: Any, task: Path) -> list[dict[str, Any]]:
    """lmms-eval's log, by document. In float32: bfloat16, which its classes load, leaves ties to the kernels."""
    model.model.float()
    manager = TaskManager("ERROR", include_path=str(task), model_name="score")
    results = evaluator.simple_evaluate(
        model=model, tasks=["own"], task_manager=manager, batch_size=model.batch_size, log_samples=True
    )
    return sorted(results["samples"]["own"], key=lambda sample: sample["doc_id"])


def answers(logged: list[dict[str, Any]]) -> list[str]:
    return [sample["filtered_resps"][0] for sample in logged]


def records(logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [sample["token_counts"][0]["score"] for sample in logged]


def score(folder: Path, settings: str) -> Any:
    """As ``--model_args`` makes it; ``min_pixels`` is of lmms-eval's class for Qwen."""
    others = {"batch_size": 1, "max_batch_size": None, "device": "cpu"}
    smallest = f"min_pixels={SMALL}," if "qwen" in folder.name else ""
    arguments = f"pretrained={folder},max_num_frames={FRAMES},{smallest}{settings}"
    return get_model("score").create_from_arg_string(arguments, others)


@pytest.fixture(scope="module")
def stock(saved_qwen: Path, task: Path) -> list[dict[str, Any]]:
    """lmms-eval's own class."""
    options = {"max_num_frames": FRAMES, "min_pixels": SMALL}
    return samples(get_model("qwen2_5_vl")(str(saved_qwen), device="cpu", device_map="cpu", **options), task)


@pytest.mark.parametrize("settings", ["compressor=none", "compressor=divprune,retention=1.0", "retention=1.0"])
def test_with_all_tokens_it_answers_as_lmms_evals_own_class(
    settings: str, saved_qwen: Path, task: Path, stock: list[dict[str, Any]]
) -> None:
    logged = samples(score(saved_qwen, settings), task)
    assert answers(logged) == answers(stock)
    assert len(set(answers(logged))) > 1  # they do depend on the video


def test_each_sample_has_its_record(saved_qwen: Path, task: Path, stock: list[dict[str, Any]]) -> None:
    logged = samples(score(saved_qwen, "compressor=uniform,retention=0.25"), task)
    assert answers(logged) != answers(stock)
    for record in records(logged):
        frames = FRAMES // 2  # two are one
        assert record["kept"] == keep_count(frames, record["tokens"] // frames, 0.25)
        assert record["retention"] == record["kept"] / record["tokens"]
        assert record["batch"] == 1
        times = record["milliseconds"]
        assert set(times) == PHASES
        assert min(times.values()) > 0
        assert times["vision tower"] + times["compression"] + times["prefill"] < times["first token"] < times["answer"]


def test_batches(saved_qwen: Path, task: Path) -> None:
    """Rows of a batch are in an order of lmms-eval's own; each record is with its document."""
    one = samples(score(saved_qwen, "compressor=evs,retention=0.1"), task)
    two = score(saved_qwen, "compressor=evs,retention=0.1,batch_size=2")
    logged = samples(two, task)
    assert [record["kept"] for record in records(logged)] == [record["kept"] for record in records(one)]
    assert {record["batch"] for record in records(logged)} == {2}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_without_a_class_of_lmms_evals(family: str, task: Path, tmp_path: Path) -> None:
    """This package reads the videos: exactly the frames asked for; the answers are those of the same model without
    lmms-eval, of which ``score ask`` is made."""
    folder = tmp_path / family
    save_square_model(folder, family)
    model = score(folder, "compressor=uniform,retention=0.25")
    logged = samples(model, task)
    tokens = (3 * 3 if family == "llava_onevision" else 4 * 4) * FRAMES
    assert {record["tokens"] for record in records(logged)} == {tokens}
    assert {record["kept"] for record in records(logged)} == {tokens // 4}

    plain, processor = load_model(str(folder), torch.device("cpu"), torch.float32), load_processor(str(folder))
    own = []
    for sample in logged:
        document = model.task_dict["own"]["test"][sample["doc_id"]]
        clip = read_clip(document["video"], FRAMES, 768 * 768)
        inputs = processor_inputs(processor, clip, chat_text(processor, document["question"]))
        with Compressor("uniform", retention=0.25).wrap(plain):
            ids = plain.generate(**inputs, max_new_tokens=4, do_sample=False)
        own.append(processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])
    assert answers(logged) == own


def test_settings_that_do_not_go_together(saved_qwen: Path) -> None:
    with pytest.raises(ScoreError, match="retention must not be given with compressor=none"):
        score(saved_qwen, "compressor=none,retention=0.5")
    with pytest.raises(OSError, match="nowhere"):
        score(saved_qwen, "compressor=nowhere")
