"""The commands and the configuration of "LLaVA-Video-178K on one 80 GB GPU" in docs/training.md, on a tiny model and a
few clips."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.videos import write_video

from score_video.cli import main

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "training.md"


def configuration() -> dict[str, Any]:
    """The YAML of that section."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("### LLaVA-Video-178K on one 80 GB GPU")[2]
    found = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert found is not None
    config: dict[str, Any] = yaml.safe_load(found[1])
    return config


def test_from_the_fields_file_to_a_policy(saved_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llava-video" / "academic").mkdir(parents=True)
    rows = []
    for number in range(6):
        frames = np.random.default_rng(number).integers(0, 256, (8, 56, 56, 3), dtype=np.uint8)
        write_video(tmp_path / "llava-video" / "academic" / f"{number}.mp4", frames)
        asked = f"<image>\nWhat is in video {number}?\nA. Noise.\nB. A dog.\nC. A car.\nAnswer with the letter."
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": "ABC"[number % 3] + "."}]
        rows.append({"id": str(number), "conversations": turns, "video": f"academic/{number}.mp4"})
    Path("questions.json").write_text(json.dumps(rows), encoding="utf-8")
    assert main(["data", "check", "questions.json", "--media", "llava-video", "--frames", "32"]) == 0
    command = ["data", "filter", "questions.json", "--model", str(saved_qwen), "--media", "llava-video"]
    assert main([*command, "--output", "left.jsonl"]) == 0
    left = Path("left.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    assert 2 <= len(left) < len(rows)
    Path("train.jsonl").write_text("".join(left[:-1]), encoding="utf-8")
    Path("validation.jsonl").write_text(left[-1], encoding="utf-8")

    config = configuration()
    config["environment_options"] |= {"model": str(saved_qwen), "dtype": "float32", "num_frames": 4}
    config["training"] |= {"max_steps": 1, "per_device_train_batch_size": 1, "num_generations": 2, "report_to": "none"}
    Path("llava-video.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["train", "--config", "llava-video.yaml", "--output-dir", "run"]) == 0
    assert Path("run/model.safetensors").is_file()
    assert list(Path("features").glob("*.safetensors"))

    config["environment_options"]["device_map"] = "auto"
    Path("mapped.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["train", "--config", "mapped.yaml", "--output-dir", "mapped"]) == 0
    assert Path("mapped/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
