"""``score ask`` from outside, on saved models with their real processors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from helpers.saved_square_models import FAMILIES as SQUARE
from helpers.saved_square_models import save_square_model
from helpers.videos import CLIPS, write_video
from PIL import Image
from safetensors.torch import load_file, save_file

import score_video.drawing.overlay
import score_video.mllm.ask
from score_ext.budget import keep_count
from score_video.cli import main
from score_video.commands.options import PRETRAINED_NAME
from score_video.compressor import AdaptiveRetention, Compressor
from score_video.drawing.overlay import Compressed
from score_video.mllm import compress_inputs, supported_models
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.testing import SavedFamily, save_tiny_model
from score_video.video import read_frames

ROOT = Path(__file__).resolve().parents[3]
WIDTH = 64
QUESTION = "What happens in this video?"

pytestmark = pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: make test has it")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    families: tuple[SavedFamily, ...] = ("qwen2_5_vl", "qwen3_vl")
    for family in families:
        save_tiny_model(folder / family, family, width=WIDTH)
    for square in SQUARE:
        save_square_model(folder / square, square, WIDTH)
    return {family: folder / family for family in (*families, *SQUARE)}


@pytest.fixture(scope="module")
def model(models: dict[str, Path]) -> Path:
    return models["qwen2_5_vl"]


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s at 10 fps, 224x168: noise with a bright square that moves over it."""
    noise = np.random.default_rng(0).integers(0, 120, (168, 224, 3), dtype=np.uint8)

    def frames() -> Iterator[np.ndarray]:
        for number in range(20):
            frame = noise.copy()
            frame[40:96, 8 * number : 8 * number + 56] = 230
            yield frame

    return write_video(tmp_path_factory.mktemp("clip") / "moving.mp4", frames(), size=(224, 168))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def ask(*arguments: object) -> dict[str, Any]:
    """What ``--json`` writes; its file is gone again."""
    assert main(["ask", *map(str, arguments), "--json", "answer.json"]) == 0
    report: dict[str, Any] = json.loads(Path("answer.json").read_text())
    Path("answer.json").unlink()
    return report


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a command that fails with status 2 and leaves nothing behind."""
    before = sorted(Path.cwd().rglob("*"))
    assert main(["ask", *map(str, arguments)]) == 2
    error = capfd.readouterr().err
    assert error.startswith("score: error: ")
    assert error.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return error


def policy(folder: str, width: int = WIDTH, **config: Any) -> SurprisePolicy:
    torch.manual_seed(0)
    made = SurprisePolicy(SurprisePolicyConfig(token_width=width, hidden_sizes=[8], **config))
    made.save_pretrained(folder)
    return made


def stock(folder: Path, video: Path, frames: int, max_new_tokens: int) -> tuple[str, Any, Any, Any]:
    """The stock model's answer, without anything of ours but the reading of frames; model, processor, inputs."""
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.video_utils import VideoMetadata

    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    sampled = read_frames(video, lambda height, width: (height, width), num_frames=frames)
    rate, length = 10, 20  # of the fixture
    indices = [round(time * rate) for time in sampled.timestamps]
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}
    inputs = processor(
        text=[processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)],
        videos=[torch.from_numpy(sampled.frames).permute(0, 3, 1, 2)],
        video_metadata=[VideoMetadata(total_num_frames=length, fps=rate, frames_indices=indices)],
        do_sample_frames=False,
        return_tensors="pt",
    )
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    new = output[0, inputs["input_ids"].shape[1] :]
    return processor.decode(new, skip_special_tokens=True).strip(), model, processor, inputs


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", *SQUARE])
def test_few_frames_and_still_pictures(models: dict[str, Path], moving: Path, family: str) -> None:
    """Processors of some families want two frames or more."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 3):
        noise = rng.integers(0, 256, (count, 168, 224, 3), dtype=np.uint8)
        write_video(Path(f"{count}.mp4"), list(noise), size=(224, 168))
    Image.fromarray(noise[0]).save("still.png")
    Image.fromarray(noise[0]).save("still.jpg")
    asked = {"1.mp4": (1, 32), "2.mp4": (2, 32), "3.mp4": (3, 32), "still.png": (1, 32), "still.jpg": (1, 32)}
    for name, (frames, wanted) in {**asked, str(moving): (1, 1)}.items():
        options = ["--method", "uniform", "--retention", 0.5, "--max-new-tokens", 2]
        if family.startswith("qwen") or name == "1.mp4":
            options += ["--pictures", "pictures", "--overwrite"]
        report = ask(name, QUESTION, "--model", models[family], "--frames", wanted, *options)
        assert report["frames"]["sampled"] == frames
        assert report["tokens"]["grid"][0] == (-(-frames // 2) if family.startswith("qwen") else frames)
        assert report["compressed"]["visual_tokens"] == report["tokens"]["visual"] // 2


def test_a_picture_that_the_processor_refuses(models: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((4, 1000, 3), dtype=np.uint8)).save("strip.png")
    error = refused(capfd, "strip.png", QUESTION, "--model", models["qwen3_vl"])
    assert "the model's processor refuses the video: absolute aspect ratio must be smaller than 200" in error


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", *SQUARE])
def test_both_answers_are_those_of_the_stock_model(
    models: dict[str, Path], moving: Path, family: str, capfd: pytest.CaptureFixture[str]
) -> None:
    report = ask(moving, QUESTION, "--model", models[family], "--frames", 6, "--max-new-tokens", 12, "--compare")
    printed = capfd.readouterr()
    expected, model, processor, inputs = stock(models[family], moving, 6, 12)
    full, compressed = report["full"], report["compressed"]
    assert full["answer"] == expected
    assert full["prompt_tokens"] == inputs["input_ids"].shape[1]
    t, rows, columns = report["tokens"]["grid"]
    assert full["visual_tokens"] == report["tokens"]["visual"] == t * rows * columns
    assert t == (6 if family in SQUARE else 3)

    shorter = compress_inputs(model, dict(inputs), Compressor())
    output = model.generate(**shorter, max_new_tokens=12, do_sample=False)[0, shorter.prompt_length :]
    assert compressed["answer"] == processor.decode(output, skip_special_tokens=True).strip()
    assert compressed["answer"] != full["answer"]  # or nothing was shown

    kept = keep_count(t, rows * columns, 0.1)
    assert compressed["visual_tokens"] == kept
    assert full["prompt_tokens"] - compressed["prompt_tokens"] == full["visual_tokens"] - kept
    assert (compressed["new_tokens"], full["new_tokens"]) == (len(output), 12)

    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[:3] == ["load", "decode", "processor"]
    # what would move a terminal's cursor is spelt out
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in compressed["answer"])
    assert f"\n{PRETRAINED_NAME}: {shown}\n" in printed.out
    assert any(line.split()[:3] == ["visual", "tokens,", "of"] and f" {kept} " in line for line in lines)


def test_everything_kept_is_the_stock_model(model: Path, moving: Path) -> None:
    report = ask(moving, QUESTION, "--model", model, "--frames", 5, "--retention", 1.0, "--max-new-tokens", 8)
    assert report["compressed"]["answer"] == stock(model, moving, 5, 8)[0]
    assert report["full"] is None
    assert report["compressed"]["visual_tokens"] == report["tokens"]["visual"]


def test_the_numbers(model: Path, moving: Path) -> None:
    basic = (moving, QUESTION, "--model", model, "--fps", 2, "--max-new-tokens", 1)
    report = ask(*basic, "--method", "random", "--seed", 3)
    assert set(report) == {
        *(
            "video",
            "source",
            "frames",
            "question",
            "model",
            "model_type",
            "device",
            "dtype",
            "decides",
            "selection",
            "seed",
        ),
        *("retention", "tokens", "compressed", "full", "versions", "milliseconds_to_load", "before_tower"),
    }
    assert report["before_tower"] is None
    answer = report["compressed"]
    assert set(answer) == {
        *("answer", "visual_tokens", "prompt_tokens", "new_tokens", "milliseconds", "milliseconds_to_first_token"),
        "tokens_per_second",
    }
    assert [*answer["milliseconds"]] == ["decode", "processor", "vision tower", "compression", "prefill"]
    assert all(time > 0 for time in answer["milliseconds"].values())
    assert answer["milliseconds_to_first_token"] == pytest.approx(sum(answer["milliseconds"].values()), abs=0.05)
    assert (answer["new_tokens"], answer["tokens_per_second"]) == (1, None)
    assert report["frames"]["timestamps"] == [0.0, 0.5, 1.0, 1.5]
    assert (report["decides"], report["seed"], report["dtype"]) == ("random", 3, "float32")
    assert report["retention"]["asked"] == 0.1


def test_what_decides(model: Path, moving: Path) -> None:
    """A policy, one that sees the question, and compressors with retentions of their own."""
    basic = (moving, QUESTION, "--model", model, "--frames", 4, "--max-new-tokens", 1)
    made = policy("policy")
    policy("asker", question_width=WIDTH)
    Compressor(made, 0.4, selection="topk").save_pretrained("fixed")
    Compressor(made, AdaptiveRetention(0.2, 0.6)).save_pretrained("adaptive")
    total = ask(*basic)["tokens"]["visual"]
    grid = (2, total // 2)
    for folder, more, kept in [
        ("policy", ("--retention", 0.25), keep_count(*grid, 0.25)),
        ("asker", (), keep_count(*grid, 0.1)),
        ("fixed", (), keep_count(*grid, 0.4)),
        ("fixed", ("--retention", 0.5, "--selection", "systematic"), keep_count(*grid, 0.5)),
    ]:
        report = ask(*basic, "--policy", folder, *more)
        assert report["compressed"]["visual_tokens"] == kept
        assert report["decides"] == folder
    assert report["selection"] == "systematic"
    report = ask(*basic, "--policy", "adaptive")
    assert report["retention"]["asked"] == {"floor": 0.2, "cap": 0.6}
    assert keep_count(*grid, 0.2) <= report["compressed"]["visual_tokens"] <= keep_count(*grid, 0.6)


def test_other_dtypes_and_sizes(model: Path, moving: Path) -> None:
    basic = (moving, QUESTION, "--model", model, "--frames", 2, "--max-new-tokens", 2)
    report = ask(*basic, "--dtype", "bfloat16", "--size", 112, "--device", "cpu")
    assert (report["dtype"], report["device"]) == ("bfloat16", "cpu")
    assert (report["frames"]["height"], report["frames"]["width"]) == (84, 112)
    assert ask(*basic, "--size", 1000)["frames"]["width"] == 224  # never larger than they are


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", *SQUARE])
def test_pictures_show_what_was_kept(
    models: dict[str, Path], moving: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Compressed] = []
    draw = score_video.drawing.overlay.contact_sheet

    def spy(video: Compressed, title: str, facts: str) -> Any:
        seen.append(video)
        return draw(video, title, facts)

    monkeypatch.setattr(score_video.drawing.overlay, "contact_sheet", spy)
    basic = (moving, QUESTION, "--model", models[family], "--frames", 5, "--max-new-tokens", 1, "--method", "surprise")
    report = ask(*basic, "--retention", 0.2, "--pictures", "pictures")
    assert {path.name for path in Path("pictures").iterdir()} == {"contact.png", "overlay.mp4"}
    _, model, _, inputs = stock(models[family], moving, 5, 1)
    shorter = compress_inputs(model, dict(inputs), Compressor("surprise", 0.2))
    mask = torch.zeros(report["tokens"]["visual"], dtype=torch.bool)
    mask[shorter.kept[0]] = True
    together = 1 if family in SQUARE else 2  # frames to a token
    expected = mask.view(report["tokens"]["grid"]).repeat_interleave(together, dim=0)[:5]
    assert (seen[0].kept == expected.numpy()).all()
    assert seen[0].kept.any()
    assert seen[0].frames.shape[0] == len(seen[0].timestamps) == 5
    assert seen[0].frames.shape[1] % expected.shape[1] == seen[0].frames.shape[2] % expected.shape[2] == 0
    # as it was filmed, not as the model's normalised pixels
    assert abs(int(seen[0].frames[0].max()) - 230) < 25

    assert main(["ask", *map(str, basic), "--pictures", "pictures"]) == 2  # in the way
    assert main(["ask", *map(str, basic), "--pictures", "pictures", "--overwrite"]) == 0


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not here")
def test_a_real_clip(model: Path) -> None:
    report = ask(CLIPS / "nasa_13013.mp4", QUESTION, "--model", model, "--frames", 16, "--compare", "--pictures", "out")
    t, rows, columns = report["tokens"]["grid"]
    assert report["compressed"]["visual_tokens"] == keep_count(t, rows * columns, 0.1)
    assert report["full"]["visual_tokens"] == t * rows * columns > 300
    assert t == 8


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--policy", "p", "--method", "evs"), "give --policy or --method, not both"),
        (("--frames", 4, "--fps", 1), "give --frames or --fps, not both"),
        (("--method", "guess"), "guess"),
        (("--selection", "best"), "selection must be 'systematic', 'topk', 'diverse' or None, got 'best'"),
        (("--method", "divprune", "--selection", "topk"), "selection must be None for 'divprune'"),
        (("--retention", 0), "retention must be above 0"),
        (("--dtype", "int3"), "there is no dtype 'int3'; there are auto, float32"),
        (("--device", "abacus"), "there is no device 'abacus'"),
        (("--device", "cuda:99"), "there is no device 'cuda:99' here"),
        (("--size", 0), "size must be at least 1 pixel, got 0"),
        (("--frames", 0), "number of frames must be between"),
        (("--policy", "nowhere"), "nowhere: is neither a folder nor the id"),
        (("--json", "no/where.json"), "no/where.json"),
        (("--pictures", "no/where"), "no/where: the folder it should be made in does not exist"),
    ],
)
def test_options_that_cannot_be(
    model: Path, moving: Path, capfd: pytest.CaptureFixture[str], more: tuple[object, ...], said: str
) -> None:
    assert said in refused(capfd, moving, QUESTION, "--model", model, *more)


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question(model: Path, moving: Path, capfd: pytest.CaptureFixture[str], question: str) -> None:
    assert "question must not be empty" in refused(capfd, moving, question, "--model", model)


def test_policies_of_another_width(model: Path, moving: Path, capfd: pytest.CaptureFixture[str]) -> None:
    policy("narrow", width=32)
    said = refused(capfd, moving, QUESTION, "--model", model, "--policy", "narrow")
    assert f"narrow: the policy is for tokens of width 32, the model's have {WIDTH}" in said
    policy("asker", question_width=6)
    said = refused(capfd, moving, QUESTION, "--model", model, "--policy", "asker")
    assert f"asker: the policy is for questions of width 6, the model's have {WIDTH}" in said


def test_what_is_no_model(moving: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def said(folder: str) -> str:
        return refused(capfd, moving, QUESTION, "--model", folder)

    assert "nowhere: is neither a folder nor the id of a repository on the hub" in said("nowhere")
    Path("other").mkdir()
    assert "other: holds no model (no config.json)" in said("other")
    config = Path("other/config.json")
    config.write_text("{")
    assert "config.json is not JSON" in said("other")
    config.write_text("[]")
    assert "is not the configuration of a model: it has no model_type" in said("other")
    config.write_text('{"model_type": "llama"}')
    assert f"models of type 'llama' are not supported; supported are {', '.join(supported_models())}" in said("other")


def test_models_that_are_not_whole(model: Path, moving: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def said() -> str:
        return refused(capfd, moving, QUESTION, "--model", "part")

    shutil.copytree(model, "part")
    weights = Path("part/model.safetensors")
    tensors = load_file(weights)
    removed = sorted(name for name in tensors if "mlp" in name)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != removed}, weights, {"format": "pt"})
    assert "part lacks 1 of its weights, " in said()
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "part: its weights are damaged" in said()
    weights.unlink()
    assert "part: " in said()
    for file in Path("part").glob("tokenizer*"):
        file.unlink()
    assert "part has no tokenizer" in said()
    shutil.copytree(model, "part", dirs_exist_ok=True)
    Path("part/chat_template.jinja").unlink()
    assert "chat template" in said()
    for file in Path("part").glob("*preprocessor*"):
        file.unlink()
    assert "part: its processor cannot be loaded: " in said()


def test_the_hub_out_of_reach(moving: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    said = refused(capfd, moving, QUESTION, "--model", "nobody/has-this-model")
    assert "nobody/has-this-model: is no folder here, is not in the hub's cache, and the hub cannot be reached" in said


def test_broken_videos(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("broken.mp4").write_bytes(b"no video at all" * 100)
    for name in ("broken.mp4", "missing.mp4"):
        assert name in refused(capfd, name, QUESTION, "--model", model, "--pictures", "out", "--json", "out.json")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory(
    model: Path, moving: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(score_video.mllm.ask, "encode_inputs", fail)
    assert "not enough memory" in refused(capfd, moving, QUESTION, "--model", model, "--json", "out.json")


def test_stopped_while_it_answers(model: Path, moving: Path) -> None:
    places = [str(ROOT / "python"), str(ROOT / "tools" / "torchvision_site"), str(Path(sys.prefix) / "torchvision")]
    arguments = [str(moving), QUESTION, "--model", str(model), "--pictures", "out", "--json", "out.json"]
    with subprocess.Popen(
        [sys.executable, "-m", "score_video.cli", "ask", *arguments, "--max-new-tokens", "20000"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell runs in the background ignores SIGINT, and so would whatever that runs
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert "answer\n" in iter(process.stdout.readline, "")
        assert len(list(Path().iterdir())) == 1  # the pictures' folder, under a name of its own
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert error == ""
    assert not list(Path().iterdir())
