"""A frozen MLLM on a GPU answers as it does on the CPU, and a policy on either device learns from it."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "score_video" / "mllm"))  # its tiny models
FAMILIES = pytest.importorskip("tiny").FAMILIES
TinyProcessor = pytest.importorskip("tiny_processor").TinyProcessor
environments = pytest.importorskip("score_video.mllm.environment")  # needs transformers and PyAV
Selection = pytest.importorskip("score_video.rl.environment").Selection


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gpu_answers_as_the_cpu_does(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]()
    generator = torch.Generator().manual_seed(0)
    asked: list[dict[str, Any]] = [
        {"question": "what?", "answer": "cat", "options": []},
        {"question": "A or B", "answer": "B", "options": ["A", "B"]},
    ]
    examples = [
        {"frames": torch.randint(256, (4, 8, 8, 3), generator=generator, dtype=torch.uint8), "questions": [question]}
        for question in asked
    ]
    outcomes = []
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(family.model).to(device)
        environment = environments.MllmEnvironment(model, TinyProcessor(family), tmp_path, one_question=True)
        batch = environment.encode(examples)
        assert batch.question is not None
        assert {batch.question.device.type, batch.videos.tokens.device.type} == {device}
        first, second = batch.videos.lengths.tolist()
        index = torch.cat([torch.arange(0, first, 2), torch.arange(first, first + second, 3)])
        keep = torch.tensor([[(first + 1) // 2, (second + 2) // 3]], dtype=torch.int32)
        outcome = environment.answer(batch, Selection(index.to(device), keep.to(device)), divergence=True)
        assert outcome.divergence is not None
        outcomes.append(torch.stack([outcome.log_prob, outcome.divergence, batch.question.mean(1)[None]]).cpu())
    torch.testing.assert_close(outcomes[1], outcomes[0], atol=1e-3, rtol=1e-3)
