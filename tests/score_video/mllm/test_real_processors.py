"""Models saved with the processors that transformers has for them: prompts made by parts, and ``score train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from helpers.saved_square_models import FAMILIES as SQUARE
from helpers.saved_square_models import save_square_model
from helpers.videos import write_video
from PIL import Image

from score_video.cli import main
from score_video.compressor import Compressor
from score_video.mllm import compress_inputs, encode_inputs
from score_video.mllm.conversation import Clip, chat_ids, chat_text, processor_inputs, read_clip
from score_video.mllm.environment.encoded_video import encode_video
from score_video.mllm.load import load_model, load_processor
from score_video.policy import SurprisePolicy
from score_video.testing import SavedFamily, save_tiny_model

pytest.importorskip("torchvision")

QUESTIONS = [
    "What happens in this video?",
    "  Spaces  and\n\nlines\n",
    "\nWhich <0.5 seconds> of it? ",
    "Ünïcödé, 漢字 and 🎬",
    "<|im_start|>",
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=[*get_args(SavedFamily), *SQUARE])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param in SQUARE:
        save_square_model(folder, request.param)
    else:
        save_tiny_model(folder, request.param, tokens_per_frame=12)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    noise = np.random.default_rng(0).integers(0, 256, (20, 60, 90, 3), dtype=np.uint8)
    return read_clip(write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", list(noise)), 5, 10_000)


def test_prompts_are_those_of_the_processor(saved: Path, clip: Clip) -> None:
    model, processor = load_model(str(saved), torch.device("cpu")), load_processor(str(saved))
    video = encode_video(model, processor, clip)
    for question in QUESTIONS:
        text = chat_text(processor, question)
        with torch.no_grad():
            want = encode_inputs(model, processor_inputs(processor, clip, text))
            got = video.in_prompt(model, chat_ids(processor, text))
        assert want is not None
        assert torch.equal(got.prompt.input_ids, want.prompt.input_ids)
        assert torch.equal(got.prompt.position_ids, want.prompt.position_ids)
        assert torch.equal(got.visuals.features.placeholders, want.visuals.features.placeholders)
        assert torch.equal(got.visuals.features.rows, want.visuals.features.rows)
        assert torch.equal(got.question(), want.question())
    inside = chat_text(processor, f"What is {processor.video_token}?")
    with pytest.raises(ValueError, match="must have one placeholder for a video, got 2"):
        video.in_prompt(model, chat_ids(processor, inside))


def test_a_video_of_one_frame(saved: Path, clip: Clip) -> None:
    """Shown twice where the processor wants two; the tokens are those of the frame twice."""
    model, processor = load_model(str(saved), torch.device("cpu")), load_processor(str(saved))
    one = Clip(clip.frames[:1], clip.seconds[:1], clip.duration)
    twice = Clip(clip.frames[:1].repeat(2, 1, 1, 1), clip.seconds[:1].repeat(2), clip.duration)
    got, want = (encode_video(model, processor, shown).packed().tokens for shown in (one, twice))
    assert torch.equal(got, want[: len(got)])
    assert len(got) == len(want) // (1 if "qwen" in saved.name else 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for number in range(2):
        write_video(folder / f"{number}.mp4", list(random.integers(0, 256, (12, 60, 90, 3), dtype=np.uint8)))
        Image.fromarray(random.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    asked = {"question": "What runs?", "answer": "a dog", "options": ["a dog", "a car"]}
    for kind, suffix in (("video", "mp4"), ("image", "png")):
        lines = [json.dumps({kind: f"{number}.{suffix}", "questions": [asked, asked]}) for number in range(2)]
        (folder / f"{kind}s.jsonl").write_text("\n".join(lines))
    return folder


def config(saved: Path, folder: Path, **sections: Any) -> dict[str, Any]:
    videos, images = str(folder / "videos.jsonl"), str(folder / "images.jsonl")
    return {
        "environment": "mllm",
        "environment_options": {"model": str(saved), "num_frames": 4, "cache_dir": "cache"},
        "data": {"train": {"pseudo_video": images, "video": {"source": videos}}, "validation": videos},
        "policy": {"hidden_sizes": [8]},
        "training": {
            **{"per_device_train_batch_size": 2, "num_generations": 2, "max_steps": 4, "save_steps": 2},
            **{"retention": 0.2, "stages": [{"name": "pseudo_video", "steps": 2, "frames": 4}, {"name": "video"}]},
        },
        **sections,
    }


def train(config: dict[str, Any], output: str, *flags: str) -> int:
    Path("train.yaml").write_text(yaml.safe_dump(config))
    return main(["train", "--config", "train.yaml", "--output-dir", output, *flags])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("here")
def test_a_run_from_a_file(saved: Path, data: Path, clip: Clip) -> None:
    assert train(config(saved, data), "run") == 0
    assert len(list(Path("cache").glob("*.safetensors"))) == 2
    assert train(config(saved, data), "again") == 0
    assert Path("run/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()
    model, processor = load_model(str(saved), torch.device("cpu")), load_processor(str(saved))
    inputs = processor_inputs(processor, clip, chat_text(processor, "What runs?"))
    compressor = Compressor(SurprisePolicy.from_pretrained("run"), retention=0.2)
    compressed = compress_inputs(model, inputs, compressor)
    assert compressed.videos is not None and compressed.selected is not None
    assert compressed.selected.keep.tolist() == [int(0.2 * len(compressed.videos.tokens))]


@pytest.mark.usefixtures("here")
def test_a_policy_that_sees_the_question(saved: Path, data: Path) -> None:
    options = {"model": str(saved), "num_frames": 4, "one_question": True, "dtype": "bfloat16"}
    videos = str(data / "videos.jsonl")
    training = {"per_device_train_batch_size": 4, "num_generations": 2, "max_steps": 1}
    several = {"train": [videos, {"source": videos, "weight": 2, "media": str(data)}]}
    assert train(config(saved, data, environment_options=options, data=several, training=training), "run") == 0
    assert SurprisePolicy.from_pretrained("run").config.question_width == 64


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"environment_options": {"modle": "x"}}, "environment_options: there is no 'modle'; did you mean model"),
        ({"environment_options": {}}, "environment_options: model must be a folder or an id on the hub, got None"),
        ({"environment_options": {"model": "x", "dtype": "int8"}}, "dtype must be one of auto, float32"),
        ({"environment_options": {"model": "nowhere/at/all"}}, "nowhere/at/all"),
        (
            {"environment_options": {"model": "nowhere/at/all", "num_frames": 0}},
            "num_frames must be an integer of at least 1",
        ),
        ({"data": {}}, "data.train: must be a file, a saved data set or an id on the hub, got None"),
        ({"data": {"train": "gone.jsonl"}}, "gone.jsonl"),
        ({"data": {"train": {"source": "x", "spilt": "y"}}}, "data.train: there is no 'spilt'; did you mean split"),
        ({"data": {"train": {"pseudo_video": "x"}}}, "or by name those of the stages (video), got pseudo_video"),
        ({"data": {"train": "VIDEOS", "validation": 3}}, "data.validation: must be a file"),
        ({"data": {"trian": "VIDEOS"}}, "data: there is no 'trian'"),
        ({"data": {"train": []}}, "data.train: must be sets of examples with numbers as weights, got weights []"),
        ({"data": {"train": ["VIDEOS", {"source": "gone.json"}]}}, "gone.json"),
        ({"data": {"train": [{"source": "VIDEOS", "media": 3}]}}, "data.train, set 1: media must be a folder"),
    ],
)
def test_mistakes_in_the_file(
    data: Path, capfd: pytest.CaptureFixture[str], tiny_qwen: Path, sections: dict[str, Any], says: str
) -> None:
    known = {"VIDEOS": str(data / "videos.jsonl"), "MODEL": str(tiny_qwen)}

    def known_as(value: Any) -> Any:
        if isinstance(value, list):
            return [known_as(one) for one in value]
        return known.get(value, value) if isinstance(value, str) else value

    given = {name: {key: known_as(value) for key, value in section.items()} for name, section in sections.items()}
    capfd.readouterr()
    assert (
        train(
            config(tiny_qwen, data, **{"training": {"max_steps": 1}, "data": {"train": known["VIDEOS"]}, **given}),
            "run",
        )
        == 2
    )
    error = capfd.readouterr().err
    assert says in error and "\nscore: error: " in f"\n{error}"  # transformers' bar may stand before it
    assert not Path("run").exists()
