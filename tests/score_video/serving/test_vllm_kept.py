"""Videos that score embed compressed, in vLLM: its answers are transformers' to the same file; others are refused."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engines import HALF, RATE, dtype_of, needs_vllm, run_engines
from helpers.videos import write_video
from workload import moving_square

from score_video.commands import embed
from score_video.commands.frames import Frames
from score_video.commands.options import Chosen
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.mllm.compressed_video import CompressedVideo, read_kept
from score_video.mllm.conversation import chat_text
from score_video.mllm.load import load_model, load_processor
from score_video.serving.kept import content_part, video_embeds
from score_video.testing import save_tiny_model

pytestmark = needs_vllm

QUESTION = "What happens?"


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A model, and two videos compressed for it, which keep other counts than vLLM's formula would."""
    folder = tmp_path_factory.mktemp("kept")
    model = folder / request.param
    save_tiny_model(model, request.param)
    videos = [
        write_video(folder / f"{seed}.mp4", moving_square(seed, frames=n), size=(140, 84))
        for seed, n in ((1, 16), (2, 24))
    ]
    chosen = Chosen(Compressor("surprise", 0.15), "surprise")
    options = embed.EmbedOptions(torch.device("cpu"), dtype_of(model), Frames(8))
    done = embed.run(videos, str(model), chosen, options, folder / "out")
    assert not done.broken
    return model, [folder / "out" / name for name in done.made]


def test_answers_as_transformers_do(files: tuple[Path, list[Path]], tmp_path: Path) -> None:
    folder, kept = files
    dtype = dtype_of(folder)
    model = load_model(str(folder), torch.device("cpu"), getattr(torch, dtype))
    processor = load_processor(str(folder))
    same = 1 if folder.name in HALF else 6  # of the answers' tokens; in bfloat16 the first, before one that differs
    wanted, lengths = [], []
    for file in kept:
        inputs = CompressedVideo.load(file, model, processor).inputs(model, processor, QUESTION)
        answer = model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False)
        wanted.append(answer[0, inputs.prompt_length :].tolist())
        lengths.append(inputs.prompt_length)
    assert wanted[0] != wanted[1]
    text = chat_text(processor, QUESTION)
    names = {str(number): [text, str(file)] for number, file in enumerate(kept)}
    job: dict[str, Any] = {"name": "kept", "model": str(folder), "setting": "surprise", "rate": RATE, "method": "evs"}
    chunks = {"dtype": dtype, "enable_mm_embeds": True, "max_num_batched_tokens": 24, "max_num_seqs": 4}
    job |= {"options": chunks, "requests": [["0", "1"], ["0"]], "kept files": names}
    done = run_engines(tmp_path, [job])["kept"]
    assert [done["answers"][name]["output"][:same] for name in ("0", "1")] == [ids[:same] for ids in wanted]
    assert [len(done["answers"][name]["prompt"]) for name in ("0", "1")] == lengths
    assert done["kept"] == []  # nothing was chosen again
    token = model.config.video_token_id
    for name, file in zip(("0", "1"), kept, strict=True):
        assert done["answers"][name]["prompt"].count(token) == len(video_embeds(file)["score_index"])


def test_the_times_of_the_prompt_that_a_file_was_made_of(files: tuple[Path, list[Path]]) -> None:
    """Of the second video they lie halfway between two times that can be written."""
    folder, kept = files
    if "timestamps" not in video_embeds(kept[0]):
        pytest.skip("its prompts have no times")
    processor = load_processor(str(folder))
    for file in kept:
        tensors, _ = read_kept(file)
        written = re.findall(r"<([\d.]+) seconds>", processor.tokenizer.decode(tensors["ids"]))
        assert [f"{time:.1f}" for time in video_embeds(file)["timestamps"][0].tolist()] == written


def config_of(folder: Path, pruning: Any = ("evs", RATE)) -> Any:
    from transformers import AutoConfig

    multimodal = SimpleNamespace(get_video_pruning_spec=lambda: pruning)
    return SimpleNamespace(
        hf_config=AutoConfig.from_pretrained(folder), model=str(folder), multimodal_config=multimodal
    )


def test_what_is_checked(files: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from score_video.serving.vllm_kept import check_kept

    folder, (file, _) = files
    monkeypatch.setenv("SCORE_VIDEO_COMPRESSOR", "surprise")
    data = video_embeds(file)
    check_kept(data, config_of(folder))
    rows, index = data["video_embeds"], data["score_index"]
    times = "timestamps" if "timestamps" in data else "second_per_grid_ts"
    broken: dict[str, tuple[dict[str, Any], str]] = {
        "no counts": ({"score_counts": None}, "must have score_counts"),
        "another width": ({"video_embeds": rows[:, 1:]}, "video_embeds must be finite numbers"),
        "not finite": ({"video_embeds": rows * np.inf}, "video_embeds must be finite numbers"),
        "a row less": ({"video_embeds": rows[1:]}, "score_counts must count the rows"),
        "a count of 0": ({"score_counts": torch.tensor([0])}, "score_counts must count the rows"),
        "beyond the video": ({"score_index": index + 10_000}, "score_index must be ascending places of the "),
        "not ascending": ({"score_index": index.flip(0)}, "score_index must be ascending places of the "),
        "no times": ({times: None}, "must have timestamps or second_per_grid_ts"),
        "no JSON": ({"score_about": torch.zeros(1, 1024, dtype=torch.uint8)}, "score_about must be what score embed"),
        "text": ({"score_index": "0, 1"}, "score_index must be a tensor, got str"),
    }
    for name, (change, said) in broken.items():
        changed = {key: value for key, value in {**data, **change}.items() if value is not None}
        with pytest.raises(ScoreError, match=said):
            check_kept(changed, config_of(folder))
            pytest.fail(name)
    with pytest.raises(ScoreError, match="need a server with --video-pruning-rate"):
        check_kept(data, config_of(folder, None))
    save_tiny_model(tmp_path / "other", folder.name, layers=3)  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match=r"was compressed for .*, of which this server's .*other' differs"):
        check_kept(data, config_of(tmp_path / "other"))
    monkeypatch.setenv("SCORE_VIDEO_COMPRESSOR", "norm")
    with pytest.raises(
        ScoreError, match=r"'1.mp4' was compressed by 'surprise', and this server's compressor is 'norm'"
    ):
        check_kept(data, config_of(folder))


def test_a_choice_before_the_tower_is_another_compressor(
    files: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from score_video.serving.vllm_kept import check_kept

    folder, (file, _) = files
    Compressor("surprise", 0.1, before_tower=Compressor("uniform", 0.3)).save_pretrained(tmp_path / "gated")
    monkeypatch.setenv("SCORE_VIDEO_COMPRESSOR", str(tmp_path / "gated"))
    with pytest.raises(ScoreError, match=r"compressed by 'surprise', and this server's compressor is '.*gated'"):
        check_kept(video_embeds(file), config_of(folder))


def test_a_part_of_a_message(files: tuple[Path, list[Path]], tmp_path: Path) -> None:
    import base64
    import io

    part, data = content_part(files[1][0]), video_embeds(files[1][0])
    assert part["type"] == "video_embeds" and part["video_embeds"].keys() == data.keys()
    for name, text in part["video_embeds"].items():
        assert torch.equal(torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True), data[name])
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    with pytest.raises(ScoreError, match=r"other.safetensors is no compressed video, or is damaged"):
        video_embeds(tmp_path / "other.safetensors")
