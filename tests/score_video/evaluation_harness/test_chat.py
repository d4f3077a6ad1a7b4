"""The chat model ``score`` under lmms-eval itself: answers as of its own classes, and a record of each sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.saved_square_models import FAMILIES, save_square_model

pytest.importorskip("lmms_eval", reason="tools/eval.sh has lmms-eval")

from harness import FRAMES, SMALL, answers, records, samples, score
from lmms_eval.models import get_model

from score_ext.budget import keep_count
from score_video import Compressor
from score_video.errors import ScoreError
from score_video.evaluation_harness.smaller import SMALLER
from score_video.mllm.conversation import chat_text, processor_inputs, read_clip
from score_video.mllm.load import load_model, load_processor
from score_video.testing import save_tiny_model

PHASES = {"read", "vision tower", "compression", "prefill", "first token", "answer"}


@pytest.fixture(scope="module")
def saved_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen3_vl"
    save_tiny_model(folder, "qwen3_vl")
    return folder


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


@pytest.mark.parametrize("settings", ["compressor=none", "compressor=evs,retention=1.0"])
def test_so_it_does_as_qwen3(settings: str, saved_qwen3: Path, task: Path) -> None:
    options = {"max_num_frames": FRAMES, "min_pixels": SMALL, "device": "cpu", "device_map": "cpu"}
    own = samples(get_model("qwen3_vl")(str(saved_qwen3), **options), task)
    logged = samples(score(saved_qwen3, settings), task)
    assert answers(logged) == answers(own)
    assert len(set(answers(logged))) > 1


@pytest.mark.parametrize("kind", SMALLER)
@pytest.mark.parametrize("family", ["saved_qwen", "saved_qwen3"])
def test_smaller_videos(kind: str, family: str, task: Path, request: pytest.FixtureRequest) -> None:
    """The tokens of the whole video, and at most as many kept as by a compressor, nearly as many."""
    folder = request.getfixturevalue(family)
    compressed = records(samples(score(folder, "compressor=uniform,retention=0.4"), task))
    smaller = records(samples(score(folder, f"compressor={kind},retention=0.4,batch_size=2"), task))
    for one, other in zip(smaller, compressed, strict=True):
        assert one["tokens"] == other["tokens"]
        assert 0.5 * other["kept"] < one["kept"] <= other["kept"]
        assert one["retention"] == one["kept"] / one["tokens"]


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


@pytest.mark.parametrize("compressor", ["divprune,retention=0.25", "fewer-frames,retention=0.25", "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_batches_of_families_without_a_class(family: str, compressor: str, task: Path, tmp_path: Path) -> None:
    folder = tmp_path / family
    save_square_model(folder, family)
    one = samples(score(folder, f"compressor={compressor}"), task)
    batched = samples(score(folder, f"compressor={compressor},batch_size=3"), task)  # of four questions
    assert answers(batched) == answers(one)
    assert [record.get("kept") for record in records(batched)] == [record.get("kept") for record in records(one)]
    assert sorted(record["batch"] for record in records(batched)) == [1, 3, 3, 3]


@pytest.mark.parametrize(("fps", "frames"), [(2, 5), (100, FRAMES)])
def test_frames_a_second(fps: int, frames: int, task: Path, tmp_path: Path) -> None:
    """Of clips of 2.4 seconds: at most ``max_num_frames``."""
    save_square_model(tmp_path / "internvl", "internvl")
    logged = samples(score(tmp_path / "internvl", f"compressor=uniform,retention=0.25,fps={fps}"), task)
    assert {record["tokens"] for record in records(logged)} == {4 * 4 * frames}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("batch_size=auto", "batch_size must be a number of prompts, got 'auto'"),
        ("fps=0", "fps must be above 0, got 0"),
        ("dtype=int8", "dtype must be one of"),
        ("compressor=resize,retention=0.5", "compressor must not be resize for this model"),
    ],
)
def test_settings_of_families_without_a_class(settings: str, says: str, tmp_path: Path) -> None:
    save_square_model(tmp_path / "internvl", "internvl")
    with pytest.raises(ScoreError, match=says):
        score(tmp_path / "internvl", settings)


def test_settings_that_do_not_go_together(saved_qwen: Path) -> None:
    for settings in ("compressor=resize", "compressor=fewer-frames,retention=0.5,selection=topk"):
        with pytest.raises(ScoreError, match="must be given with a retention, and without a selection"):
            score(saved_qwen, settings)
    with pytest.raises(ScoreError, match="retention must not be given with compressor=none"):
        score(saved_qwen, "compressor=none,retention=0.5")
    with pytest.raises(OSError, match="nowhere"):
        score(saved_qwen, "compressor=nowhere")
