"""A task of four short clips for lmms-eval. Without lmms-eval nothing of it runs (``make test-eval`` has it)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.videos import write_video

TASK = """\
task: own
dataset_path: json
dataset_kwargs:
  data_files: {test: DATA}
test_split: test
output_type: generate_until
doc_to_messages: !function own_task.doc_to_messages
doc_to_visual: !function own_task.doc_to_visual
doc_to_text: question
doc_to_target: answer
generation_kwargs: {max_new_tokens: 4, temperature: 0, do_sample: false}
process_results: !function own_task.process_results
metric_list:
  - {metric: accuracy, aggregation: mean, higher_is_better: true}
metadata: [{version: 0}]
"""


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task "own": four questions about clips of 24 frames of noise, 112x112."""
    folder = tmp_path_factory.mktemp("task")
    rows: list[dict[str, Any]] = []
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (24, 112, 112, 3), dtype=np.uint8)
        path = write_video(folder / f"{number}.mp4", noise)
        rows.append({"video": str(path), "question": f"What happens in video {number}?", "answer": "A"})
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "own.yaml").write_text(TASK.replace("DATA", str(data)), encoding="utf-8")
    shutil.copy(Path(__file__).parent / "own_task.py", folder)
    return folder
