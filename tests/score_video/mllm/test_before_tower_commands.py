"""A choice before the tower through wrap, score ask, score eval, the cache of features and compressed videos."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.videos import write_video
from tiny import FAMILIES
from tiny_processor import TinyProcessor

from score_video import Compressor
from score_video.cli import main
from score_video.errors import ScoreError
from score_video.methods import RandomMethod
from score_video.mllm import compress_inputs
from score_video.mllm.compressed_video import compress_video
from score_video.mllm.conversation import clip_of_frames
from score_video.mllm.environment import MllmEnvironment
from score_video.mllm.pixels import NORMALISATION, VIDEOS, with_floats
from score_video.policy import SurprisePolicy, pretrained_policy

SHOWN = [[5, ("video", 6), 4], [7, ("video", 8), 2]]
GATED = Compressor(retention=0.15, before_tower=Compressor(RandomMethod(3), 0.4), halo=1)
needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: make test has it")


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    return write_video(tmp_path / "clip.mp4", list(noise))


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_wrapped_as_compressed(name: str, without_gradients: None) -> None:
    family = FAMILIES[name]()
    inputs = family.batch(SHOWN).inputs("left")
    short = compress_inputs(family.model, inputs, GATED)
    want = family.model.generate(**short, max_new_tokens=4, do_sample=False)[:, short.prompt_length :]
    with GATED.wrap(family.model) as wrapping:
        got = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        assert torch.equal(got, want)
        assert [kept.tolist() for kept in wrapping.kept] == [kept.tolist() for kept in short.kept]


@pytest.mark.parametrize("gated", [False, True])
def test_bytes_in_a_wrapped_model(gated: bool, without_gradients: None) -> None:
    """A later turn may have the first one's inputs again; and text has no video, whatever is among its inputs."""
    family = FAMILIES["qwen2_5_vl"]()
    given = dict(family.batch(SHOWN[:1]).inputs("left"))
    given[VIDEOS] = torch.randint(0, 256, given[VIDEOS].shape, dtype=torch.uint8)
    given[NORMALISATION] = torch.tensor([[122.77, 116.75, 104.09], [68.5, 66.63, 70.32]])
    answers = []
    for inputs in (given, with_floats(given)):
        with (GATED if gated else Compressor("divprune", 0.15)).wrap(family.model):
            first = family.model.generate(**inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
            ids = torch.cat([first.sequences, torch.tensor([[30, 31]])], 1)
            more = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids), "cache": first.past_key_values}
            more |= {"mm_token_type_ids": torch.zeros_like(ids)} if "mm_token_type_ids" in inputs else {}
            answers.append(family.model.generate(**more, max_new_tokens=3, do_sample=False))
            text = {name: inputs[name] for name in inputs if name == NORMALISATION}
            answers.append(family.model.generate(input_ids=torch.tensor([[5, 6, 7]]), **text, max_new_tokens=3))
    assert torch.equal(answers[0], answers[2]) and torch.equal(answers[1], answers[3])


@needs_torchvision
def test_ask(tiny_qwen: Path, clip: Path) -> None:
    basic = ["ask", str(clip), "What?", "--model", str(tiny_qwen), "--frames", "16", "--json", "out.json"]
    gate = [
        "--method",
        "divprune",
        "--retention",
        "0.1",
        "--before-tower",
        "surprise-l2:0.4",
        "--halo",
        "1",
        "--compare",
    ]
    assert main([*basic, *gate]) == 0
    report = json.loads(Path("out.json").read_text())
    total, seen = report["tokens"]["visual"], report["before_tower"]
    assert seen["kept"] == int(total * 0.4) < seen["encoded"] < total
    assert (seen["retention"], seen["halo"]) == (0.4, 1)
    assert report["compressed"]["visual_tokens"] == int(total * 0.1)
    assert report["full"]["visual_tokens"] == total
    # the whole tower was run for the answer on all tokens, and timed by itself
    mine, whole = report["compressed"]["milliseconds"], report["full"]["milliseconds"]
    assert mine["vision tower"] != whole["vision tower"]
    assert [*mine] == ["decode", "processor", "gate", "vision tower", "compression", "prefill"]
    assert min(mine.values()) > 0 and "gate" not in whole
    assert main([*basic, "--compare"]) == 0
    plain = json.loads(Path("out.json").read_text())
    assert plain["before_tower"] is None and plain["full"]["answer"] == report["full"]["answer"]


@needs_torchvision
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--before-tower", "surprise-l2"], "--before-tower must be NAME:RETENTION"),
        (["--before-tower", "surprise-l2:2"], "--before-tower must be NAME:RETENTION"),
        (["--before-tower", "surprise-l2:0.1"], "two frames' worth"),
        (["--before-tower", "norm:0.05"], "before_tower.retention must be at least retention, 0.1"),
        (["--halo", "1"], "halo must be 0 without before_tower, got 1"),
        (
            ["--before-tower", "nothing:0.3"],
            "--before-tower must name a folder, the id of a repository, or one of",
        ),
    ],
)
def test_what_ask_refuses(
    options: list[str], says: str, tiny_qwen: Path, clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(clip), "What?", "--model", str(tiny_qwen), "--frames", "16", *options]) == 2
    assert says in " ".join(capfd.readouterr().err.split())


@needs_torchvision
def test_eval(tiny_qwen: Path, clip: Path) -> None:
    row = {"video": clip.name, "id": "clip", "question": "What runs? A or B", "answer": "B", "options": ["A", "B"]}
    Path("test.jsonl").write_text(json.dumps(row))
    base = ["eval", "--environment", "mllm", "--model", str(tiny_qwen), "--data", "test.jsonl", "--frames", "16"]
    both = ["--method", "random", "--method", "uniform", "--retention", "0.1,0.3", "--json", "out.json"]

    def rows(*options: str) -> list[dict[str, Any]]:
        assert main([*base, *both, *options]) == 0
        return json.loads(Path("out.json").read_text())["rows"]  # type: ignore[no-any-return]

    plain, gated = rows(), rows("--before-tower", "evs-dithered:0.4")
    named = {"method": "evs-dithered", "retention": 0.4, "halo": 0}
    assert json.loads(Path("out.json").read_text())["before_tower"] == {"random": named, "uniform": named}
    open_ = rows("--before-tower", "random:1")
    assert plain == open_  # a gate that lets everything through
    assert plain[0] == gated[0]  # all tokens: of a tower that has seen all
    assert [row["kept"] for row in plain] == [row["kept"] for row in gated]
    assert all(a["log_prob"] != b["log_prob"] for a, b in zip(plain[1:], gated[1:], strict=True))
    assert main([*base, "--method", "random", "--retention", "0.5", "--before-tower", "random:0.4"]) == 2
    # less than what a compressor keeps where nothing is said
    assert main([*base, "--method", "random", "--retention", "0.02", "--before-tower", "random:0.05"]) == 0


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_the_caches_key_holds_the_gate(name: str, tmp_path: Path, clip: Path) -> None:
    family = FAMILIES[name]()
    processor = TinyProcessor(family)
    whole = MllmEnvironment(family.model, processor, tmp_path / "cache", num_frames=8)
    example = [{"video": str(clip), "questions": [{"question": "what?", "answer": "cat", "options": []}]}]
    gates = [
        Compressor(retention=0.1, before_tower=before, halo=halo).gate
        for before, halo in ((Compressor(RandomMethod(1), 0.3), 0), (Compressor(RandomMethod(2), 0.3), 0))
    ] + [Compressor(retention=0.1, before_tower=Compressor(RandomMethod(1), 0.3), halo=1).gate]
    worlds = [whole, *(whole.behind(gate) for gate in gates if gate is not None)]
    cold = [world.encode(example) for world in worlds]
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 4
    ran = processor.calls
    warm = [world.encode(example) for world in worlds]
    assert processor.calls == ran
    for one, other in zip(cold, warm, strict=True):
        assert torch.equal(one.videos.tokens, other.videos.tokens)
        if one.seen is not None:
            assert torch.equal(one.seen.kept.index, other.seen.kept.index)
            assert torch.equal(one.seen.encoded, other.seen.encoded)
    assert len({tuple(one.videos.tokens.flatten().tolist()) for one in cold}) == 4

    class Scores:
        def scores(self, videos: Any) -> torch.Tensor:
            return videos.tokens.norm(dim=1)  # type: ignore[no-any-return]

    own = Compressor(retention=0.1, before_tower=Compressor(Scores(), 0.3)).gate
    assert own is not None
    with pytest.raises(ScoreError, match="before_tower must be a policy or a named rule for a cache"):
        whole.behind(own)


def test_a_compressed_video_is_of_what_was_seen(without_gradients: None) -> None:
    family = FAMILIES["qwen2_5_vl"]()
    processor = TinyProcessor(family)
    frames = torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clip = clip_of_frames(frames, 2.0)
    video = compress_video(family.model, processor, clip, GATED)
    assert video.encoded.seen is not None
    assert torch.isin(video.index, video.encoded.seen.kept.index).all() and len(video.index) == int(
        video.num_tokens * 0.15
    )


@needs_torchvision
def test_train(tiny_qwen: Path, clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The cache holds what the tower made of what it saw; what is saved stands behind its gate, and asks so."""
    row = {"video": clip.name, "id": "clip", "question": "What runs? A or B", "answer": "B", "options": ["A", "B"]}
    Path("train.jsonl").write_text(json.dumps(row))
    options = {"model": str(tiny_qwen), "num_frames": 16, "cache_dir": "cache", "halo": 1}

    def train(before_tower: object, output: str) -> int:
        settings = {"max_steps": 2, "retention": 0.2, "per_device_train_batch_size": 1, "num_generations": 2}
        config = {
            "environment": "mllm",
            "environment_options": {**options, "before_tower": before_tower},
            "data": {"train": "train.jsonl", "validation": "train.jsonl"},
            "policy": {"state": "relative"},
            "training": settings,
        }
        Path("train.json").write_text(json.dumps(config))
        return main(["train", "--config", "train.json", "--output-dir", output])

    assert train("evs-dithered:0.4", "run") == 0
    saved = Compressor.from_pretrained("run")
    assert isinstance(saved.method, SurprisePolicy) and saved.method.config.behind_gate
    assert saved.before_tower is not None
    assert (saved.before_tower.method, saved.before_tower.retention, saved.halo) == ("evs-dithered", 0.4, 1)
    capfd.readouterr()
    basic = ["ask", clip.name, "What?", "--model", str(tiny_qwen), "--frames", "16", "--json", "out.json"]
    assert main([*basic, "--policy", "run"]) == 0
    assert "not trained behind" not in capfd.readouterr().err
    report = json.loads(Path("out.json").read_text())
    assert report["before_tower"]["kept"] == int(report["tokens"]["visual"] * 0.4)
    assert main([*basic, "--before-tower", "evs-dithered:0.4"]) == 0  # by the package's policy for there
    assert "not trained behind" not in capfd.readouterr().err
    pretrained_policy().save_pretrained("whole")
    assert main([*basic, "--policy", "whole", "--before-tower", "evs-dithered:0.4"]) == 0
    assert capfd.readouterr().err.count("warning: the policy was not trained behind") == 1
    for given, says in [
        ("evs-dithered", "environment_options: before_tower must be NAME:RETENTION, such as surprise-l2:0.3"),
        (0.4, "environment_options: before_tower must be NAME:RETENTION, got 0.4"),
        (None, "halo must be 0 without before_tower or pixels, got 1"),
        ("norm:0.1", "before_tower.retention must be at least retention, 0.2"),
    ]:
        assert train(given, "none") == 2
        assert says in " ".join(capfd.readouterr().err.split())
