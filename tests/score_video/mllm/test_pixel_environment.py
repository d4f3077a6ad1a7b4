"""Policies that choose before an MLLM's tower: each sample is answered from a tower that sees what is in it alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.given import given_gate, given_samples
from helpers.tiny_training import tiny_training
from helpers.videos import write_video
from tiny import FAMILIES, Family
from tiny_families import ALL
from tiny_processor import TinyProcessor

from score_video import Compressor
from score_video.before_tower import Gate
from score_video.commands.train import train
from score_video.errors import ScoreError
from score_video.mllm.environment import MllmEnvironment, PixelEnvironment
from score_video.mllm.gated import FRAMES, TOKENS
from score_video.policy import SurprisePolicy
from score_video.rl.environment import UnreadableError

OPEN = {"question": "what?", "answer": "cat", "options": []}
LETTERS = {"question": "A or B", "answer": "B", "options": ["A", "B"]}
ASKED = [[OPEN, LETTERS], [OPEN]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 24, 24, 3), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("clips")
    return [write_video(folder / f"{n}.mp4", list(frames)) for n, frames in enumerate(noise)]


@pytest.fixture(scope="module", params=[name for name in ALL if name in TOKENS])
def family(request: pytest.FixtureRequest) -> Family:
    torch.set_num_threads(1)
    return ALL[request.param]()


def examples(clips: Sequence[Path]) -> list[dict[str, Any]]:
    return [
        {"id": str(n), "video": str(clip), "image": None, "questions": asked}
        for n, (clip, asked) in enumerate(zip(clips, ASKED, strict=True))
    ]


@pytest.mark.parametrize("halo", [0, 1])
def test_a_sample_is_what_a_gate_that_chose_it_would_give(family: Family, clips: list[Path], halo: int) -> None:
    """Of outcomes, on videos of one batch and samples of different sizes."""
    processor = TinyProcessor(family)
    environment = PixelEnvironment(family.model, processor, halo=halo, num_frames=4)
    batch = environment.encode(examples(clips))
    assert batch.videos.tokens.shape[1] == environment.token_width and batch.seen is None
    first, second = batch.videos.lengths.tolist()
    samples = [[list(range(0, first, 3)), list(range(1, second, 2))], [[0], [2, 3, second - 1]]]
    outcome = environment.answer(batch, given_samples(batch, samples))

    whole = MllmEnvironment(family.model, processor, num_frames=4)
    of_whole = whole.encode(examples(clips))
    other = whole.answer(of_whole, given_samples(of_whole, samples))
    for g, sample in enumerate(samples):
        for b, places in enumerate(sample):
            gated = whole.behind(given_gate(places, halo))
            one = gated.encode([examples(clips)[b]])
            wanted = gated.answer(one, one.everything)
            torch.testing.assert_close(outcome.log_prob[g, b], wanted.log_prob[0, 0], atol=2e-5, rtol=1e-5)
            assert outcome.correct[g, b] == wanted.correct[0, 0]
    assert not torch.allclose(outcome.log_prob, other.log_prob, atol=1e-4)  # the whole tower's are others


def test_all_tokens_and_none(family: Family, clips: list[Path]) -> None:
    """All chosen are the stock model's, and diverge by nothing from what the whole tower makes of them."""
    processor = TinyProcessor(family)
    environment, whole = (kind(family.model, processor, num_frames=4) for kind in (PixelEnvironment, MllmEnvironment))
    batch, of_whole = environment.encode(examples(clips)), whole.encode(examples(clips))
    outcome = environment.answer(batch, batch.everything, divergence=True, full=True)
    wanted = whole.answer(of_whole, of_whole.everything, full=True)
    torch.testing.assert_close(outcome.log_prob, wanted.log_prob, atol=2e-5, rtol=1e-5)
    assert outcome.divergence is not None and outcome.divergence.abs().max() < 1e-5
    assert outcome.full_log_prob is not None and wanted.full_log_prob is not None
    torch.testing.assert_close(outcome.full_log_prob, wanted.full_log_prob, atol=2e-5, rtol=1e-5)
    none = environment.answer(batch, given_samples(batch, [[[], [1]], [[], []]]), divergence=True)
    assert none.log_prob.isfinite().all() and none.divergence is not None and (none.divergence > 0).all()


def test_a_video_that_cannot_be_read_is_named(clips: list[Path], tmp_path: Path) -> None:
    """Its place in the batch too, by which others are left alone; and once its features are in the cache."""
    qwen = FAMILIES["qwen2_5_vl"]()
    environment = PixelEnvironment(qwen.model, TinyProcessor(qwen), cache_dir=tmp_path / "features", num_frames=4)
    rows = examples(clips)
    environment.encode(rows)
    rows[1]["video"] = str(tmp_path / "gone.mp4")
    with pytest.raises(UnreadableError, match=r"gone\.mp4") as raised:
        environment.encode(rows)
    assert raised.value.position == 1


def test_the_processor_runs_once(clips: list[Path]) -> None:
    qwen = FAMILIES["qwen2_5_vl"]()
    environment = PixelEnvironment(qwen.model, TinyProcessor(qwen), num_frames=4)
    environment.encode(examples(clips))
    assert environment.processor.calls == len(clips)


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    qwen = FAMILIES["qwen2_5_vl"]()
    processor = TinyProcessor(qwen)
    for halo in (-1, 1.0, True):
        with pytest.raises(ScoreError, match=f"halo must be 0 or more, got {halo}"):
            PixelEnvironment(qwen.model, processor, halo=halo)  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match="one_question must be false with pixels"):
        PixelEnvironment(qwen.model, processor, one_question=True)
    with pytest.raises(ScoreError, match=r"pixels must be false with before_tower \(norm\)"):
        PixelEnvironment(qwen.model, processor).behind(Gate(Compressor("norm", 0.5), 0, "norm"))
    dense = FAMILIES[next(name for name in FAMILIES if name in FRAMES)]()
    with pytest.raises(ScoreError, match="whose tower sees whole frames or nothing"):
        PixelEnvironment(dense.model, TinyProcessor(dense))
    monkeypatch.delitem(TOKENS, "qwen2_5_vl")
    with pytest.raises(
        ScoreError,
        match="pixels must be false for models of type 'qwen2_5_vl': nobody",
    ):
        PixelEnvironment(qwen.model, processor)


@pytest.fixture
def config(tiny_qwen: Path, clips: list[Path], tmp_path: Path) -> dict[str, Any]:
    rows = [f'{{"video": "{clip}", "question": "A or B?", "answer": "A", "options": ["A", "B"]}}' for clip in clips]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows * 2), encoding="utf-8")
    settings = {"max_steps": 2, "per_device_train_batch_size": 2}
    return tiny_training(tiny_qwen, tmp_path, {"pixels": True, "halo": 1}, settings)


def run(config: dict[str, Any], folder: Path) -> Any:
    (file := folder / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return train(file, output=folder / "run")


def test_what_is_trained_so_chooses_before_the_tower(config: dict[str, Any], tmp_path: Path) -> None:
    metrics = run(config, tmp_path)
    assert metrics is not None and metrics["eval_kept_ratio"] == pytest.approx(0.3, abs=0.05)
    trained = Compressor.from_pretrained(tmp_path / "run")
    assert isinstance(trained.method, SurprisePolicy) and trained.method.config.token_width == 48
    both = Compressor("divprune", 0.1, before_tower=trained, halo=1)
    config["environment_options"] = {
        **{name: config["environment_options"][name] for name in ("model", "num_frames")},
        "before_tower": f"{tmp_path / 'run'}:0.3",
    }
    assert both.gate is not None
    assert run(config, tmp_path / "run") is not None  # a policy behind it


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pixels": 1}, "pixels must be true or false, got 1"),
        ({"halo": -1}, "halo must be 0 or more, got -1"),
        ({"pixels": False}, "environment_options: halo must be 0 without before_tower or pixels, got 1"),
        ({"before_tower": "norm:0.5"}, r"pixels must be false with before_tower \(norm\)"),
        ({"one_question": True}, "one_question must be false with pixels"),
    ],
)
def test_options_that_do_not_go_together(
    config: dict[str, Any], tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    config["environment_options"] |= options
    with pytest.raises(ScoreError, match=says):
        run(config, tmp_path)
    assert not (tmp_path / "run").exists()
