"""The plugin behind vLLM's OpenAI-compatible server, asked by OpenAI's client about real clips."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from engines import HALF, RATE, needs_vllm, save_policy, serve
from helpers.videos import CLIPS, write_video
from PIL import Image
from workload import AT_ONCE, moving_square

from score_ext.budget import evs_count

pytestmark = needs_vllm

FPS = 2  # frames that vLLM samples of a second, and at least 4


def data_url(content: bytes, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def clip_of(seed: int, folder: Path) -> bytes:
    """A made clip: 4 s, 140x84."""
    return write_video(folder / f"{seed}.mp4", moving_square(seed, frames=40), size=(140, 84)).read_bytes()


class Asker:
    """Asks the server, and knows how its model sees a clip."""

    def __init__(self, model: Path, url: str, folder: Path) -> None:
        from openai import OpenAI
        from transformers import AutoProcessor

        self.client = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)
        self.processor = AutoProcessor.from_pretrained(model)
        self.family = model.name
        self.folder = folder

    def __call__(self, *parts: tuple[str, bytes], question: str = "What happens?") -> Any:
        content: list[Any] = [
            {
                "type": f"{kind}_url",
                f"{kind}_url": {"url": data_url(data, "video/mp4" if kind == "video" else "image/png")},
            }
            for kind, data in parts
        ]
        return self.client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
            max_completion_tokens=6,
            temperature=0,
            extra_body={"ignore_eos": True, "return_token_ids": True},
        )

    def placeholders(self, answer: Any) -> int:
        count: int = answer.prompt_token_ids.count(self.processor.tokenizer.convert_tokens_to_ids("<|video_pad|>"))
        return count

    def count(self, clip: bytes) -> int:
        """How many tokens of a clip vLLM's formula keeps."""
        with av.open(io.BytesIO(clip)) as container:
            stream = container.streams.video[0]
            rate, size = float(stream.average_rate or 0), (stream.height, stream.width)
            total = sum(1 for _ in container.decode(stream))
        frames = max(4, int(total / rate * FPS))
        video = np.zeros((frames, *size, 3), dtype=np.uint8)
        output = self.processor.video_processor(videos=[video], do_sample_frames=False, return_tensors="pt")
        t, h, w = output["video_grid_thw"][0].tolist()
        return evs_count(t, h * w // 4, RATE)


@pytest.fixture(scope="module")
def ask(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    folder = tmp_path_factory.mktemp("server")
    policy = save_policy(folder / "policy", token_width=64)
    options = ["--enforce-eager", "--video-pruning-rate", str(RATE), "--max-num-seqs", str(AT_ONCE)]
    options += ["--media-io-kwargs", f'{{"video": {{"fps": {FPS}}}}}', "--enable-prompt-tokens-details"]
    options += ["--block-size", "32"]  # the smallest for CPUs: only whole blocks are cached
    options += ["--limit-mm-per-prompt", '{"image": 1, "video": 2}']
    with serve(model, folder, str(policy), options) as url:
        yield Asker(model, url, folder)


def test_answers_about_a_clip(ask: Asker) -> None:
    clip = clip_of(0, ask.folder)
    answer = ask(("video", clip))
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 6
    assert ask.placeholders(answer) == ask.count(clip)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no real clips beside the repository")
def test_answers_about_real_clips(ask: Asker) -> None:
    for path in sorted(CLIPS.glob("*.mp4")):
        answer = ask(("video", path.read_bytes()))
        assert ask.placeholders(answer) == ask.count(path.read_bytes()), path
        assert answer.usage.completion_tokens == 6


def test_videos_and_an_image_in_one_prompt(ask: Asker) -> None:
    picture = io.BytesIO()
    Image.fromarray(moving_square(3, frames=1)[0]).save(picture, "png")
    first, second = clip_of(1, ask.folder), clip_of(2, ask.folder)
    answer = ask(("video", first), ("image", picture.getvalue()), ("video", second))
    assert ask.placeholders(answer) == ask.count(first) + ask.count(second)
    assert answer.usage.completion_tokens == 6


def test_many_at_once_are_answered_as_one_by_one(ask: Asker) -> None:
    clips = [clip_of(10 + number, ask.folder) for number in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        together = list(pool.map(lambda clip: ask(("video", clip)), clips))
    alone = [ask(("video", clip)) for clip in clips[:4]]
    tokens = [tuple(answer.choices[0].token_ids) for answer in together]
    assert tokens[:4] == [tuple(answer.choices[0].token_ids) for answer in alone]
    # of these clips, transformers' Qwen3.5 with its random weights says the same of nearly all too
    assert ask.family in HALF or len(set(tokens)) > 1
    assert [ask.placeholders(answer) for answer in together] == [ask.count(clip) for clip in clips]


def test_a_cached_video(ask: Asker) -> None:
    clip = clip_of(30, ask.folder)
    first, again = ask(("video", clip)), ask(("video", clip))
    other = ask(("video", clip), question="Describe it.")
    assert again.choices[0].message.content == first.choices[0].message.content
    if (
        ask.family not in HALF
    ):  # with linear attention a block is larger than this prompt, and only whole ones are cached
        assert again.usage.prompt_tokens_details.cached_tokens > 0
    assert ask.placeholders(other) == ask.placeholders(first)


@pytest.mark.parametrize("broken", ["noise", "cut", "empty"])
def test_a_broken_video_is_its_client_s_error(ask: Asker, broken: str) -> None:
    import openai

    whole = clip_of(40, ask.folder)
    content = {"noise": bytes(range(256)) * 20, "cut": whole[: len(whole) // 3], "empty": b""}[broken]
    with pytest.raises(openai.APIStatusError) as error:
        ask(("video", content))
    assert 400 <= error.value.status_code < 500
    assert ask(("video", whole)).usage.completion_tokens == 6  # it goes on serving
