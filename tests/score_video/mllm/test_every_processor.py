"""Every family through its own processor, chat template and all, with frames of two real clips; and ``score ask``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import by_hand
from helpers.videos import write_video
from masked import TOLERANCE, difference, masked
from saved_families import ELSEWHERE, PROCESSORS, make_processor, save
from test_hybrids import COUNTED
from tiny_families import ALL, MASKED, SHORTENED

from score_video.cli import main
from score_video.compressor import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import encode_inputs
from score_video.mllm.adapter import find_adapter
from score_video.mllm.conversation import Clip, chat_text, processor_inputs, read_clip
from score_video.mllm.registry import FAMILIES

pytest.importorskip("torchvision")

HERE = [name for name in PROCESSORS if name in {**MASKED, **SHORTENED}]
SHARED = Path(__file__).resolve().parents[4] / "shared" / "video"
QUESTIONS = "what happens in this video?", "which of the two is red? 1 or 2"

made = functools.cache(lambda name: ALL[name]())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two films where they lie beside the repository, else two of noise."""
    films = sorted(SHARED.glob("*.mp4"))[:2]
    if len(films) == 2:
        return films
    folder, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    noise = [list(random.integers(0, 256, (12, 60, 90, 3), dtype=np.uint8)) for _ in range(2)]
    return [write_video(folder / f"{number}.mp4", frames) for number, frames in enumerate(noise)]


@pytest.fixture(scope="module")
def clips(files: list[Path]) -> list[Clip]:
    return [read_clip(file, frames, 16 * 24) for file, frames in zip(files, (8, 4), strict=True)]


def answer(model: Any, inputs: Any) -> Any:
    return model.generate(**inputs, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True)


@pytest.mark.parametrize("name", HERE)
def test_what_the_processor_makes_is_compressed_exactly(name: str, clips: list[Clip]) -> None:
    model, processor = made(name).model, make_processor(name)
    adapter = find_adapter(model)
    for clip, question in zip(clips, QUESTIONS, strict=True):
        text = chat_text(processor, question)
        inputs = processor_inputs(processor, clip, text, {**adapter.processor_options, **PROCESSORS[name].call})
        with torch.no_grad():
            encoded = encode_inputs(model, inputs)
            assert encoded is not None and encoded.visuals.videos.num_videos == 1
            videos = encoded.visuals.videos
            whole = encoded.compress(Compressor("uniform", 1.0).select(videos))
            assert difference(answer(model, whole).logits, answer(model, inputs).logits) <= TOLERANCE
            shorter = encoded.compress(Compressor(RandomMethod(3), 0.4).select(videos))
            ours = answer(model, shorter)
            assert shorter.selected is not None
            kept = set(shorter.selected.index.tolist())
            places = encoded.visuals.features.placeholders.nonzero().tolist()
            gone = [(row, column) for number, (row, column) in enumerate(places) if number not in kept]
            assert len(gone) == len(videos.tokens) - int(0.4 * len(videos.tokens))
            if name in MASKED:
                theirs = torch.stack(answer(model, masked(model, inputs, gone)).logits)
            else:
                carried = [carried for carried in adapter.carried if carried in inputs]
                hand = by_hand(model, inputs, gone, carried, name in COUNTED)
                _, theirs = hand.logits(ours.sequences[:, shorter.prompt_length :])
            assert difference(torch.stack(ours.logits), theirs) <= TOLERANCE


@pytest.mark.parametrize("name", HERE)
def test_ask(
    name: str, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded as anyone's checkpoint is, by its type."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "model", made(name), make_processor(name))
    flags = [
        "--model",
        "model",
        "--retention",
        "0.4",
        "--frames",
        "4",
        "--size",
        "28",
        "--max-new-tokens",
        "2",
        "--method",
        "uniform",
    ]
    status = main(["ask", str(files[1]), QUESTIONS[0], *flags])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert "visual tokens" in printed.out


def test_every_family_goes_through_its_processor_or_says_why_not() -> None:
    assert {*PROCESSORS, *ELSEWHERE} == set(FAMILIES)
