"""A world that takes no time: random tokens, of which some are marked; what is kept of those is how good the answer is.

As a program it trains in it, for tests that need processes of their own; each run leaves its policy in OUTPUT/final:

    python toy.py '[{"output": "...", "resume": true, and settings}, ...]'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from score_video.packed import PackedVideos
from score_video.rl.config import ScoreConfig
from score_video.rl.environment import EncodedBatch, Example, Outcome, Selection, UnreadableError

WIDTH = 6
GRID = 3

UNDECIDED = ("output.bias",)
"""What sampling exact does not depend on: the same added to all logits. Its gradient is rounding, and Adam makes steps
of the usual size of that."""


def examples(count: int = 24, frames: int = 4, broken: bool = False) -> list[Mapping[str, Any]]:
    """broken: every third cannot be read."""
    return [
        {"number": number, "frames": frames, "note": "a string", "broken": broken and number % 3 == 0}
        for number in range(count)
    ]


class ToyEnvironment:
    """A token is marked where its first channel exceeds 1; a video's tokens follow from its number."""

    def __init__(self) -> None:
        self.frozen = torch.nn.Linear(WIDTH, WIDTH)
        self.encoded: list[list[Example]] = []
        self.selections: list[Selection] = []

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        for position, example in enumerate(examples):
            if example.get("broken"):
                raise UnreadableError(f"{example['number']}.mp4: is broken", position)
        self.encoded.append(list(examples))
        videos = [
            torch.randn(e["frames"], GRID, GRID, WIDTH, generator=torch.Generator().manual_seed(e["number"]))
            for e in examples
        ]
        packed = PackedVideos.from_frames(videos)
        return EncodedBatch(packed, packed.tokens[:, 0] > 1)

    def answer(
        self, batch: EncodedBatch, selection: Selection, *, divergence: bool = False, full: bool = False
    ) -> Outcome:
        self.selections.append(selection)
        marked: Tensor = batch.payload.float()
        group_of_row = torch.arange(selection.keep.numel()).repeat_interleave(selection.keep.flatten())
        kept = torch.zeros(selection.keep.numel()).index_add(0, group_of_row, marked[selection.index])
        all_marked = torch.zeros(batch.videos.num_videos).index_add(0, batch.videos.video_of_token, marked)
        share = kept.view(selection.keep.shape) / all_marked.clamp(min=1)
        of_all = 2 * (all_marked > 0).float() - 2
        return Outcome(
            2 * share - 2, (share > 0.5).float(), 1 - share if divergence else None, of_all if full else None
        )


def config(output: Path, **settings: Any) -> ScoreConfig:
    base: dict[str, Any] = {
        "output_dir": str(output),
        "max_steps": 6,
        "lr_scheduler_type": "constant",  # so that a shorter run is the beginning of a longer one
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "retention": 0.2,
        "save_steps": 2,
        "logging_steps": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
    }
    return ScoreConfig(**{**base, **settings})


def policy() -> Any:
    from score_video.policy import SurprisePolicy, SurprisePolicyConfig

    torch.manual_seed(0)
    return SurprisePolicy(SurprisePolicyConfig(token_width=WIDTH, hidden_sizes=[8]))


def trainer(output: Path, environment: ToyEnvironment | None = None, data: Any = None, **settings: Any) -> Any:
    from score_video.rl.trainer import ScoreTrainer

    keywords = {name: settings.pop(name) for name in ("reward", "eval_dataset", "callbacks") if name in settings}
    return ScoreTrainer(
        policy(), environment or ToyEnvironment(), config(output, **settings), data or examples(), **keywords
    )


def weights(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_close(got: Mapping[str, Tensor], want: Mapping[str, Tensor], *, but: Sequence[str] = ()) -> None:
    """Equal up to the rounding of sums that were taken in another order."""
    assert got.keys() == want.keys()
    for name in want:
        if name not in but:
            torch.testing.assert_close(
                got[name], want[name], atol=1e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
            )


def main(runs: Sequence[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    for settings in runs:
        output, resume = Path(settings.pop("output")), settings.pop("resume", None)
        run = trainer(output, data=examples(broken=settings.get("skip_broken", False)), **settings)
        run.train(resume_from_checkpoint=resume)
        if run.args.should_save:
            run.model.save_pretrained(output / "final")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
