"""Serves one model with vLLM's own methods and with ours, and writes the table in docs/serving.md.

    make bench-vllm

Each way is a server of its own (vLLM's OpenAI-compatible one, on loopback), asked by OpenAI's client about the same
clips. Prefix and processor caches are off: every request pays for its video. The model has random weights, which
speed does not depend on, and a language model that outweighs the vision tower about as in Qwen2.5-VL 7B.
"""

from __future__ import annotations

import base64
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "score_video" / "serving")]

from engines import serve  # noqa: E402
from helpers.videos import CLIPS  # noqa: E402

from score_video import Compressor, provenance  # noqa: E402
from score_video.testing import save_tiny_model  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "serving.json"
DOCUMENT = ROOT / "docs" / "serving.md"
BEGIN, END = "<!-- made by make bench-vllm: do not edit -->", "<!-- end of what is made -->"
BEFORE_TOWER = 0.3
RATE, WIDTH, LAYERS, VISION_LAYERS, TOKENS_PER_FRAME = 0.9, 512, 16, 2, 128
NEW_TOKENS = 8
REQUESTS = {1: 12, 8: 16, 16: 32, 32: 32}  # at once: how many in all


@dataclass(frozen=True)
class Way:
    """A row of the table: what decides (the plugin's setting) and vLLM's method, which counts; None: no pruning."""

    name: str
    setting: str | None
    method: str | None


@dataclass
class Measured:
    """Of one way. By clip: tokens kept, and seconds to the first token, one request at a time, median and fastest.
    By how many are at once: requests a second, and the median of the seconds to their first tokens."""

    name: str
    kept: dict[str, int]
    first_token: dict[str, tuple[float, float]]
    throughput: dict[int, float]
    latency: dict[int, float]


def ways(folder: Path) -> list[Way]:
    """All of them; compressors that choose before the vision tower too are saved in the folder."""
    gated = {}
    for halo in (0, 1):
        compressor = Compressor(retention=1 - RATE, before_tower=Compressor("evs-dithered", BEFORE_TOWER), halo=halo)
        gated[halo] = folder / f"halo-{halo}"
        compressor.save_pretrained(gated[halo])
    before = f"ours behind evs-dithered, {BEFORE_TOWER:.0%} before the tower"
    return [
        Way("nothing", None, None),
        Way("EVS", "vllm", "evs"),
        Way("VidCom2", "vllm", "vidcom2"),
        Way("ours, EVS's count", "pretrained", "evs"),
        Way("ours, VidCom2's count", "pretrained", "vidcom2"),
        Way("ours without training (surprise), VidCom2's count", "surprise", "vidcom2"),
        Way(f"{before}, alone, VidCom2's count", str(gated[0]), "vidcom2"),
        Way(f"{before}, halo 1, VidCom2's count", str(gated[1]), "vidcom2"),
    ]


def measure(way: Way, model: Path, folder: Path, clips: dict[str, bytes]) -> Measured:
    from openai import OpenAI

    options = ["--enforce-eager", "--no-enable-prefix-caching", "--mm-processor-cache-gb", "0"]
    options += ["--max-num-seqs", str(max(REQUESTS)), "--max-model-len", "4096"]
    if way.method is not None:
        options += ["--video-pruning-rate", str(RATE), "--video-pruning-method", way.method]
    room = {"VLLM_CPU_KVCACHE_SPACE": "5"}  # GiB: 32 of the longest prompts, whole
    with serve(model, folder, way.setting, options, variables=room) as url:
        client = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=600)
        kept = {name: _count_placeholders(client, model, clip) for name, clip in clips.items()}
        for clip in clips.values():
            _ask(client, clip)
        throughput, latency, first_token = {}, {}, {}
        for at_once, total in REQUESTS.items():
            order = [list(clips)[number % len(clips)] for number in range(total)]
            begin = time.perf_counter()
            with ThreadPoolExecutor(at_once) as pool:
                times = list(pool.map(lambda name: _ask(client, clips[name]), order))
            throughput[at_once] = total / (time.perf_counter() - begin)
            latency[at_once] = statistics.median(times)
            if at_once == 1:
                for clip in clips:
                    own = [seconds for name, seconds in zip(order, times, strict=True) if name == clip]
                    first_token[clip] = (statistics.median(own), min(own))
    return Measured(way.name, kept, first_token, throughput, latency)


def _messages(clip: bytes) -> list[Any]:
    url = "data:video/mp4;base64," + base64.b64encode(clip).decode()
    question = {"type": "text", "text": "What happens in this video?"}
    content = [{"type": "video_url", "video_url": {"url": url}}, question]
    # vLLM 0.32's own pruning of Qwen3-VL needs some text before the video
    return [
        {"role": "system", "content": "Describe what is to be seen, briefly."},
        {"role": "user", "content": content},
    ]


def _ask(client: Any, clip: bytes) -> float:
    """Seconds to the first token; all of the answer is read."""
    begin = time.perf_counter()
    answer = client.chat.completions.create(
        model="tiny",
        messages=_messages(clip),
        max_completion_tokens=NEW_TOKENS,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(answer)
    first = time.perf_counter() - begin
    for _ in answer:
        pass
    return first


def _count_placeholders(client: Any, model: Path, clip: bytes) -> int:
    answer = client.chat.completions.create(
        model="tiny", messages=_messages(clip), max_completion_tokens=1, extra_body={"return_token_ids": True}
    )
    token = json.loads((model / "config.json").read_text())["video_token_id"]
    count: int = answer.prompt_token_ids.count(token)
    return count


def circumstances() -> str:
    import vllm  # noqa: F401  (the version of what runs, whatever distribution it came with)

    made = provenance.circumstances("vllm", "torch", "transformers")
    return (
        f"{made['cpu']}, {os.environ.get('OMP_NUM_THREADS', '1')} thread of {made['cores']} cores, load "
        f"{os.getloadavg()[0]:.1f} before; {made['date']}; vLLM {made['vllm']} (CPU), torch {made['torch']}, "
        f"transformers {made['transformers']}, Python {made['python']}, score-video {made['score']}"
    )


def tables(rows: list[dict[str, Any]], where: str) -> str:
    clips = list(rows[0]["kept"])
    lines = [f"{where}.", "", "| one at a time | " + " | ".join(f"{clip}: tokens | TTFT, s" for clip in clips) + " |"]
    lines.append("|---|" + "---:|" * 2 * len(clips))
    for row in rows:
        cells = [row["name"]]
        for clip in clips:
            median, fastest = row["first_token"][clip]
            cells += [str(row["kept"][clip]), f"{median:.2f} ({fastest:.2f})"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| requests/s (TTFT, s) | " + " | ".join(f"{at_once} at once" for at_once in REQUESTS) + " |"]
    lines.append("|---|" + "---:|" * len(REQUESTS))
    for row in rows:
        cells = [f"{row['throughput'][str(n)]:.2f} ({row['latency'][str(n)]:.1f})" for n in REQUESTS]
        lines.append("| " + " | ".join([row["name"], *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    clips = {path.stem: path.read_bytes() for path in sorted(CLIPS.glob("*.mp4"))}
    if not clips:
        raise SystemExit(f"error: there are no clips in {CLIPS}")
    where, rows = circumstances(), []
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        sizes = {"layers": LAYERS, "vision_layers": VISION_LAYERS, "width": WIDTH}
        save_tiny_model(model, "qwen3_vl", **sizes, tokens_per_frame=TOKENS_PER_FRAME)
        for number, way in enumerate(ways(Path(temporary))):
            folder = Path(temporary) / str(number)
            folder.mkdir()
            rows.append(asdict(measure(way, model, folder, clips)))
            print(rows[-1], flush=True)
    results = json.loads(json.dumps({"where": where, "rows": rows}))  # keys as they are read back
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = DOCUMENT.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables(results['rows'], where)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
