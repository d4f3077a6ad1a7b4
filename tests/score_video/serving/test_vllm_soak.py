"""Five hundred requests to one server, 16 at once: no answer is lost or wrong, and its memory stays bounded.

Of ten requests one has a broken video and two are cancelled after their first token; the others ask about videos, an
image, both, or nothing but text. With ``-s`` it prints what it measured, as docs/serving.md has it.
"""

from __future__ import annotations

import base64
import io
import statistics
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engines import RATE, needs_vllm, save_policy, serve
from helpers.videos import write_video
from PIL import Image
from workload import AT_ONCE, moving_square

from score_video.testing import save_tiny_model

pytestmark = needs_vllm

REQUESTS, SETTLED, AT_END = 500, 100, 50
GROWTH = 0.08
"""Most that memory may grow by after the first 100: vLLM 0.32's own worker grows on CPUs, without the plugin as with it
(docs/serving.md has both), the more slowly the longer it runs."""

CLIPS, PICTURES = 20, 5
BROKEN, CANCELLED = (0,), (1, 2)  # last digits of requests' numbers
Part = tuple[str, bytes]


def parts_of(number: int, clips: list[bytes], pictures: list[bytes]) -> list[Part]:
    """What a request shows beside its text: by its number's last digit nothing, an image, both, or a video alone."""
    clip, picture = clips[number % 7 + number // 10 % 14], pictures[number // 10 % PICTURES]
    kinds: dict[int, list[Part]] = {3: [], 4: [("image", picture)], 5: [("image", picture), ("video", clip)]}
    return kinds.get(number % 10, [("video", clip)])


def broken(number: int, clip: bytes) -> bytes:
    return [bytes(range(256)) * 20, clip[: len(clip) // 3], b""][number // 10 % 3]


class Asker:
    """Streams answers of a server, and sees how much memory its processes have."""

    def __init__(self, url: str) -> None:
        import psutil
        from openai import OpenAI

        self.url = url
        self.client = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)
        self.processes = psutil.Process().children(recursive=True)

    def megabytes(self) -> float:
        return sum(process.memory_info().rss for process in self.processes if process.is_running()) / 1e6

    def __call__(self, parts: list[Part], *, cancel: bool = False) -> list[int]:
        """Token ids of the answer; with ``cancel`` those that came first."""
        content: list[Any] = [
            {
                "type": f"{kind}_url",
                f"{kind}_url": {
                    "url": f"data:{'video/mp4' if kind == 'video' else 'image/png'};base64,"
                    + base64.b64encode(data).decode()
                },
            }
            for kind, data in parts
        ]
        answer: list[int] = []
        with self.client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": [*content, {"type": "text", "text": "What happens?"}]}],
            max_completion_tokens=40 if cancel else 6,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True, "return_token_ids": True},
        ) as stream:
            for chunk in stream:
                answer += getattr(chunk.choices[0], "token_ids", None) or []  # the first chunk has none
                if cancel and answer:
                    break
        return answer

    def outcome(self, number: int, clips: list[bytes], pictures: list[bytes]) -> tuple[list[int] | str, float]:
        """What becomes of a request, the answer's token ids where there is one; and the server's megabytes after it."""
        import openai

        digit = number % 10
        said: list[int] | str
        if digit in BROKEN:
            try:
                self([("video", broken(number, clips[number % CLIPS]))])
                said = "answered"
            except openai.APIStatusError as error:
                said = "refused" if 400 <= error.status_code < 500 else f"status {error.status_code}"
        else:
            said = self(parts_of(number, clips, pictures), cancel=digit in CANCELLED)
        return said, self.megabytes()


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(moving_square(seed, frames=1)[0]).save(file, "png")
    return file.getvalue()


def test_500_requests_to_qwen3_vl(tmp_path: Path) -> None:
    model = tmp_path / "qwen3_vl"
    save_tiny_model(model, "qwen3_vl")
    clips = [
        write_video(tmp_path / f"{n}.mp4", moving_square(n, frames=20 + 4 * (n % 5)), size=(140, 84)).read_bytes()
        for n in range(CLIPS)
    ]
    pictures = [png(100 + n) for n in range(PICTURES)]
    options = ["--enforce-eager", "--video-pruning-rate", str(RATE), "--max-num-seqs", str(AT_ONCE)]
    options += ["--limit-mm-per-prompt", '{"image": 1, "video": 1}']
    # nothing is remembered, so that every request is decoded, encoded and compressed
    options += ["--no-enable-prefix-caching", "--mm-processor-cache-gb", "0"]
    options += ["--max-model-len", "4096", "--num-gpu-blocks-override", "64"]  # memory that is not the KV cache's
    with serve(model, tmp_path, str(save_policy(tmp_path / "policy", token_width=64)), options) as url:
        ask = Asker(url)
        wanted: dict[tuple[Part, ...], list[int]] = {}
        for number in range(REQUESTS):
            if number % 10 not in BROKEN and (parts := tuple(parts_of(number, clips, pictures))) not in wanted:
                wanted[parts] = ask(list(parts))  # alone
        began = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            done = list(pool.map(lambda number: ask.outcome(number, clips, pictures), range(REQUESTS)))
        seconds = time.perf_counter() - began
        with urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=10) as health:
            assert health.status == 200
    assert len({tuple(answer) for answer in wanted.values()}) > len(wanted) // 2  # or equal answers would say little
    for number, (said, _) in enumerate(done):
        if number % 10 in BROKEN:
            assert said == "refused", number
        elif number % 10 in CANCELLED:
            answer = wanted[tuple(parts_of(number, clips, pictures))]
            assert said and said[:6] == answer[: len(said)], number
        else:
            assert said == wanted[tuple(parts_of(number, clips, pictures))], number
    megabytes = [used for _, used in done]
    settled = statistics.median(megabytes[SETTLED : SETTLED + AT_END])
    end = statistics.median(megabytes[-AT_END:])
    print(
        f"\n{REQUESTS} requests in {seconds:.0f} s, {AT_ONCE} at once; {len(wanted)} different ones asked alone "
        f"before; memory of the server's processes {settled:.0f} MB after {SETTLED}, {end:.0f} MB at the end"
    )
    assert end <= (1 + GROWTH) * settled
