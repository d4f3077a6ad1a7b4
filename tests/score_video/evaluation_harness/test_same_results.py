"""The harness against ``score eval --environment mllm``: the same questions come out the same.

An answer without options is right, in ``score eval``, when each of its tokens is the most probable one: when it is what
the model would generate. So the right answers of these questions are what the model does generate, from all tokens or
from some; the harness then has to find the same ones right. They are of one token: what a model with random weights
makes of two is seldom text that would be read as the same two again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.saved_square_models import save_square_model

pytest.importorskip("lmms_eval", reason="tools/eval.sh has lmms-eval")

from harness import FRAMES, records, samples, score

from score_video import Compressor
from score_video.cli import main
from score_video.mllm.conversation import chat_text, processor_inputs, read_clip
from score_video.mllm.load import load_model, load_processor

RULES = ("uniform", "evs", "divprune")
RETENTION = 0.25


def questions(folder: Path, clips: list[str]) -> list[dict[str, Any]]:
    """Up to four about each clip, whose answers are generated from all tokens or from what divprune keeps."""
    model, processor = load_model(str(folder), torch.device("cpu"), torch.float32), load_processor(str(folder))
    rows = []
    for number, clip in enumerate(clips):
        for word in ("What", "Where", "When", "Who"):
            question = f"{word} happens in video {number}?"
            inputs = processor_inputs(processor, read_clip(clip, FRAMES, 768 * 768), chat_text(processor, question))
            width = inputs["input_ids"].shape[1]
            generated = [model.generate(**inputs, max_new_tokens=1, do_sample=False)]
            with Compressor("divprune", retention=RETENTION).wrap(model):
                generated.append(model.generate(**inputs, max_new_tokens=1, do_sample=False))
            for ids in generated[:: 1 - 2 * (len(rows) % 2)]:  # the one or the other first, in turns
                answer = ids[0, width:].tolist()
                text = processor.decode(answer, skip_special_tokens=True)
                # what the harness compares is text without spaces around it, what score eval forces is tokens
                again = processor.tokenizer(text, add_special_tokens=False).input_ids
                if text and text == text.strip() and again == answer:
                    rows.append({"video": clip, "question": question, "answer": text})
                    break
    return rows


def test_the_same_questions_are_right(task: Path, tmp_path: Path) -> None:
    folder = tmp_path / "internvl"
    save_square_model(folder, "internvl")
    rows = questions(folder, [str(task / f"{number}.mp4") for number in range(4)])
    assert len(rows) >= 4
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "task").mkdir()
    for file in ("own.yaml", "own_task.py"):
        text = (task / file).read_text(encoding="utf-8").replace("max_new_tokens: 4", "max_new_tokens: 1")
        (tmp_path / "task" / file).write_text(text.replace(str(task / "questions.jsonl"), str(data)), encoding="utf-8")

    rules = [argument for rule in RULES for argument in ("--method", rule)]
    command = ["eval", "--environment", "mllm", "--model", str(folder), "--data", str(data), *rules]
    command += ["--retention", str(RETENTION), "--frames", str(FRAMES), "--json", str(tmp_path / "eval.json")]
    assert main(command) == 0
    evaluated = json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))

    ours = {(row["rule"], number): row for number, one in enumerate(evaluated["samples"]) for row in one["results"]}
    right = []
    for rule in ("all tokens", *RULES):
        settings = "compressor=none" if rule == "all tokens" else f"compressor={rule},retention={RETENTION}"
        logged = samples(score(folder, settings), tmp_path / "task")
        assert len(logged) == len(rows)
        for number, (sample, record) in enumerate(zip(logged, records(logged), strict=True)):
            assert sample["accuracy"] == ours[rule, number]["right"], (rule, rows[number])
            assert record.get("kept") in (None, ours[rule, number]["kept"])
            right.append(sample["accuracy"])
    assert set(right) == {0.0, 1.0}
