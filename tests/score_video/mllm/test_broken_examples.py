"""Videos and images that cannot be read, in a training on a real (tiny) MLLM: it stops and says where, or goes on."""

from __future__ import annotations

import json
import shutil
import warnings
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
from score_video.rl.environment import UnreadableError
from score_video.rl.trainer import ScoreTrainer

STEPS = 6
ASKED = {"question": "A or B?", "answer": "A", "options": ["A", "B"]}
BROKEN = {"cut.mp4", "empty.mp4", "text.mp4"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def qwen() -> Family:
    return FAMILIES["qwen2_5_vl"]()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos, three files that are none, three images, two of them damaged; and questions about all."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for number in range(3):
        write_video(folder / f"{number}.mp4", list(random.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)))
    (folder / "cut.mp4").write_bytes((folder / "0.mp4").read_bytes()[:300])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video")
    Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:700])
    (folder / "text.png").write_text("not an image")
    write(folder / "videos.jsonl", "0.mp4", "cut.mp4", "1.mp4", "empty.mp4", "2.mp4", "text.mp4")
    write(folder / "images.jsonl", "cut.jpg", "whole.jpg", "text.png")
    write(folder / "none.jsonl", "cut.mp4", "text.mp4")
    write(folder / "whole.jsonl", "0.mp4", "1.mp4", "2.mp4")
    return folder


def write(path: Path, *names: str) -> None:
    rows = [{"video" if name.endswith("mp4") else "image": name, **ASKED} for name in names]
    path.write_text("\n".join(map(json.dumps, rows)))


class Watched(MllmEnvironment):
    """Remembers of what a step was made."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seen: list[list[str]] = []

    def encode(self, examples: Any) -> Any:
        encoded = super().encode(examples)
        self.seen.append([Path(example.get("video") or "still").name for example in examples])
        return encoded


def trainer(family: Family, data: Path, output: Path, **settings: Any) -> ScoreTrainer:
    train = settings.pop("train", "videos.jsonl")
    validation = settings.pop("validation", "whole.jsonl")
    cache, one = settings.pop("cache", None), settings.pop("one_question", False)
    environment = Watched(family.model, TinyProcessor(family), cache, num_frames=4, one_question=one)
    base = {"max_steps": STEPS, "per_device_train_batch_size": 2, "num_generations": 2, "retention": 0.2}
    base |= {"save_steps": 1, "logging_steps": 1, "report_to": "none", "disable_tqdm": True, "skip_broken": True}
    args = ScoreConfig(str(output), use_cpu=True, lr_scheduler_type="constant", **{**base, **settings})
    width = environment.token_width
    torch.manual_seed(0)
    sizes = {"token_width": width, "question_width": width if one else 0}
    examples: Any = load_examples(data / train)
    if one:
        examples = OneQuestionEach(examples)
    elif args.stages is not None:
        examples = {"pseudo_video": load_examples(data / "images.jsonl"), "video": examples}
    policy = SurprisePolicy(SurprisePolicyConfig(**sizes, hidden_sizes=[8]))
    return ScoreTrainer(policy, environment, args, examples, load_examples(data / validation))


def weights(run: ScoreTrainer) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in run.model.state_dict().items()}


def equal(got: dict[str, Tensor], want: dict[str, Tensor]) -> bool:
    return got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


def skipped(run: ScoreTrainer) -> set[str]:
    return {Path(reason.split(":")[0]).name for reason in run._broken.known.values()}


def test_without_the_setting_it_stops_and_says_where(qwen: Family, data: Path, tmp_path: Path) -> None:
    run = trainer(qwen, data, tmp_path, skip_broken=False)
    with pytest.raises(
        ValueError, match=r"^step \d: row [246] of the training data: .*(cut|empty|text)\.mp4: "
    ) as error:
        run.train()
    assert "score data check" in str(error.value) and "skip_broken" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("settings", [{}, {"one_question": True}, {"num_iterations": 2}, {"dataloader_num_workers": 1}])
def test_others_are_taken_and_counted(qwen: Family, data: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    run = trainer(qwen, data, tmp_path, **settings)
    with pytest.warns(UserWarning, match=r"skipped: row \d of the training data: .*\.mp4: ") as warned:
        run.train()
    assert run.state.global_step == STEPS
    assert all(len(batch) == 2 and set(batch) <= {"0.mp4", "1.mp4", "2.mp4"} for batch in run.environment.seen)
    assert skipped(run) == BROKEN
    told = [str(warning.message) for warning in warned if "skipped" in str(warning.message)]
    assert len(told) == len(BROKEN)  # each once
    counts = [line["skipped"] for line in run.state.log_history if "loss" in line]
    assert counts == sorted(counts) and counts[-1] == len(BROKEN)
    state = json.loads((tmp_path / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["SkippedExamples"]["attributes"]["count"] == len(BROKEN)


def test_whole_data_is_trained_on_as_without_the_setting(qwen: Family, data: Path, tmp_path: Path) -> None:
    runs = [trainer(qwen, data, tmp_path / str(on), train="whole.jsonl", skip_broken=on) for on in (False, True)]
    for run in runs:
        run.train()
    assert equal(weights(runs[0]), weights(runs[1]))


@pytest.fixture(scope="module")
def uninterrupted(qwen: Family, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    torch.set_num_threads(1)
    found = {}
    for name, settings in SETTINGS.items():
        run = trainer(qwen, data, tmp_path_factory.mktemp("whole"), **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.train()
        found[name] = weights(run)
    return found


STAGES = [{"name": "pseudo_video", "steps": 4, "frames": 3}, {"name": "video"}]
SETTINGS: dict[str, dict[str, Any]] = {"videos": {}, "from images": {"stages": STAGES}, "twice": {"num_iterations": 2}}


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("step", [1, 3])
def test_killed_and_resumed_it_is_the_same_run(
    qwen: Family,
    data: Path,
    tmp_path: Path,
    uninterrupted: dict[str, dict[str, Tensor]],
    name: str,
    step: int,
) -> None:
    settings = {**SETTINGS[name], "cache": tmp_path / "cache"}
    in_a_child(lambda: killed_after(step, trainer(qwen, data, tmp_path / "run", **settings)))
    run = trainer(qwen, data, tmp_path / "run", **settings)
    run.train(resume_from_checkpoint=True)
    assert equal(weights(run), uninterrupted[name])
    assert skipped(run) >= {"cut.jpg", "text.png"} if name == "from images" else skipped(run) == BROKEN


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_run_that_was_stopped_goes_on_with_the_setting(
    qwen: Family, data: Path, tmp_path: Path, uninterrupted: dict[str, dict[str, Tensor]]
) -> None:
    """As if it had had it from the beginning: that is what the setting is for."""
    whole = tmp_path / "data"
    shutil.copytree(data, whole)
    for name in BROKEN:  # whole until the first step is done
        shutil.copy(data / "0.mp4", whole / name)
    first = trainer(qwen, whole, tmp_path / "run", skip_broken=False, max_steps=1)
    order = first.train_dataset
    late = [step for step in range(STEPS) if {order.row_of(2 * step + n)[1] for n in range(2)} & {1, 3, 5}][-1]
    run = trainer(qwen, whole, tmp_path / "run", skip_broken=False, max_steps=late)
    run.train()
    for name in BROKEN:
        shutil.copy(data / name, whole / name)
    stopped = trainer(qwen, whole, tmp_path / "run", skip_broken=False)
    with pytest.raises(ValueError, match=f"step {late + 1}: row"):
        stopped.train(resume_from_checkpoint=True)
    on = trainer(qwen, whole, tmp_path / "run")
    on.train(resume_from_checkpoint=True)
    assert on.state.global_step == STEPS and len(skipped(on)) >= 1
    # what could not be read stays skipped, though it is mended: the run is the same, whenever it is killed
    for name in BROKEN:
        shutil.copy(data / "0.mp4", whole / name)
    again = trainer(qwen, whole, tmp_path / "run", max_steps=STEPS + 2)
    again.train(resume_from_checkpoint=True)
    assert skipped(again) == skipped(on)


def test_nothing_that_can_be_read(qwen: Family, data: Path, tmp_path: Path) -> None:
    run = trainer(qwen, data, tmp_path, train="none.jsonl")
    with pytest.raises(ValueError, match="the training data: no example of it can be read"):
        run.train()
    with pytest.raises(ValueError, match=r"eval_dataset must have examples that can be read \(of 2\), got none"):
        trainer(qwen, data, tmp_path, validation="none.jsonl").evaluate()


def test_an_evaluation(qwen: Family, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 2 of the evaluation's data: .*cut\.mp4"):
        trainer(qwen, data, tmp_path, validation="videos.jsonl", skip_broken=False).evaluate()
    run = trainer(qwen, data, tmp_path, validation="videos.jsonl")
    with pytest.warns(UserWarning, match="skipped: row 2 of the evaluation's data"):
        found = run.evaluate()
    assert found.pop("eval_skipped") == 3
    whole = trainer(qwen, data, tmp_path, skip_broken=False).evaluate()
    assert found == pytest.approx(whole, abs=1e-5)


def test_what_is_not_a_broken_file_is_an_error_all_the_same(qwen: Family, data: Path, tmp_path: Path) -> None:
    environment = MllmEnvironment(qwen.model, TinyProcessor(qwen), num_frames=4)
    good = {"video": str(data / "0.mp4"), "questions": [ASKED]}
    with pytest.raises(UnreadableError) as error:
        environment.encode([good, {**good, "video": str(data / "cut.mp4")}])
    assert error.value.position == 1
    for bad in ({**good, "questions": []}, {"id": "7", "questions": [ASKED]}):
        with pytest.raises(ValueError) as wrong:
            environment.encode([bad])
        assert not isinstance(wrong.value, UnreadableError)
