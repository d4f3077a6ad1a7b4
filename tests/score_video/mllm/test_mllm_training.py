"""A policy trained on a frozen MLLM, which does not change; a run that was killed ends in the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killed import in_a_child, killed_after
from helpers.videos import write_video
from PIL import Image
from tiny import FAMILIES, Family
from tiny_processor import TinyProcessor
from torch import Tensor

from score_video.mllm.environment import MllmEnvironment
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl.config import ScoreConfig
from score_video.rl.data import OneQuestionEach, load_examples
from score_video.rl.trainer import ScoreTrainer

STEPS = 4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def qwen() -> Family:
    return FAMILIES["qwen2_5_vl"]()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three videos and two images, and a file of questions about either."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for number in range(3):
        write_video(folder / f"{number}.mp4", list(random.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)))
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    letters = '"question": "A or B?", "answer": "A", "options": ["A", "B"]'
    lines = [f'{{"video": "{number}.mp4", {letters}}}' for number in range(2)]
    lines += [f'{{"video": "2.mp4", "questions": [{{"question": "what?", "answer": "cat"}}, {{{letters}}}]}}']
    (folder / "videos.jsonl").write_text("\n".join(lines))
    (folder / "images.jsonl").write_text("\n".join(f'{{"image": "{number}.png", {letters}}}' for number in range(3)))
    return folder


def trainer(family: Family, data: Path, output: Path, cache: Path | None, **settings: Any) -> ScoreTrainer:
    one = settings.pop("one_question", False)
    environment = MllmEnvironment(family.model, TinyProcessor(family), cache, num_frames=4, one_question=one)
    base = {"max_steps": STEPS, "per_device_train_batch_size": 2, "num_generations": 4, "retention": 0.2}
    base |= {"sampling": "counted", "reward": "fidelity", "save_steps": 1, "report_to": "none", "disable_tqdm": True}
    args = ScoreConfig(str(output), use_cpu=True, lr_scheduler_type="constant", **{**base, **settings})
    width = environment.token_width
    torch.manual_seed(0)
    sizes = {"token_width": width, "question_width": width if one else 0}
    policy = SurprisePolicy(SurprisePolicyConfig(**sizes, hidden_sizes=[8]))
    videos = load_examples(data / "videos.jsonl")
    train: Any = OneQuestionEach(videos) if one else videos
    if args.stages is not None:
        train = {"pseudo_video": load_examples(data / "images.jsonl"), "video": train}
    return ScoreTrainer(policy, environment, args, train, videos)


def weights(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("one_question", [False, True])
def test_a_step_changes_all_of_the_policy_and_nothing_of_the_model(
    qwen: Family, data: Path, tmp_path: Path, one_question: bool
) -> None:
    run = trainer(qwen, data, tmp_path, None, max_steps=1, one_question=one_question)
    model, policy = weights(qwen.model), weights(run.model)
    run.train()
    assert changed(policy, weights(run.model)) == set(policy)
    assert changed(model, weights(qwen.model)) == set()
    assert all(parameter.grad is None for parameter in qwen.model.parameters())


def test_it_learns(qwen: Family, data: Path, tmp_path: Path) -> None:
    """To keep what the model's own answers depend on, more closely than an untrained policy does."""
    settings = {"max_steps": 40, "save_steps": 40, "per_device_train_batch_size": 3, "num_generations": 8}
    run = trainer(qwen, data, tmp_path, None, sampling="exact", learning_rate=3e-2, **settings)
    before = run.evaluate()["eval_reward"]
    run.train()
    assert run.evaluate()["eval_reward"] > before / 2  # both are below 0


@pytest.fixture(scope="module")
def uninterrupted(qwen: Family, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    torch.set_num_threads(1)
    run = trainer(qwen, data, tmp_path_factory.mktemp("whole"), None)
    run.train()
    return weights(run.model)


def test_the_cache_does_not_show(qwen: Family, data: Path, tmp_path: Path, uninterrupted: dict[str, Tensor]) -> None:
    for name in ("cold", "warm"):
        run = trainer(qwen, data, tmp_path / name, tmp_path / "cache")
        run.train()
        assert changed(weights(run.model), uninterrupted) == set()
    assert run.environment.processor.calls == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_killed_and_resumed(
    qwen: Family, data: Path, tmp_path: Path, uninterrupted: dict[str, Tensor], cache: str
) -> None:
    in_a_child(lambda: killed_after(2, trainer(qwen, data, tmp_path / "run", tmp_path / "warm")))
    assert len(list((tmp_path / "warm").iterdir())) >= 2
    run = trainer(qwen, data, tmp_path / "run", tmp_path / cache)
    run.train(resume_from_checkpoint=True)
    assert changed(weights(run.model), uninterrupted) == set()


def test_from_stills_to_videos(qwen: Family, data: Path, tmp_path: Path) -> None:
    stages = [{"name": "pseudo_video", "steps": 2, "frames": 3}, {"name": "video"}]
    run = trainer(qwen, data, tmp_path / "run", tmp_path / "cache", stages=stages, reward="log_prob", sampling="exact")
    before = weights(run.model)
    run.train()
    assert changed(before, weights(run.model)) >= {"output.weight", "hidden.0.weight"}
    metrics = run.evaluate()
    assert 0 <= metrics["eval_accuracy"] <= 1 and metrics["eval_reward"] < 0
    assert len(list((tmp_path / "cache").iterdir())) == 3  # of the videos alone


def test_one_question_each(data: Path) -> None:
    examples = OneQuestionEach(load_examples(data / "videos.jsonl"))
    asked = [(Path(example["video"]).name, [q["question"] for q in example["questions"]]) for example in examples]
    assert asked == [("0.mp4", ["A or B?"]), ("1.mp4", ["A or B?"]), ("2.mp4", ["what?"]), ("2.mp4", ["A or B?"])]
