"""One of two processes that share each tiny model and make unequally many passes through it; what comes out is, to the
bit, what a process makes of the whole model. Started by test_sharding.py as torchrun would."""

from __future__ import annotations

import torch
import torch.distributed as dist
from tiny import FAMILIES, Family
from tiny_processor import TinyProcessor
from torch import Tensor

from score_video.mllm.environment import MllmEnvironment
from score_video.mllm.sharding import Sharding
from score_video.rl.environment import Selection

ASKED = [
    {"question": "A or B", "answer": "B", "options": ["A", "B"]},
    {"question": "which one", "answer": "red", "options": ["red car", "red", "dog"]},
    {"question": "what?", "answer": "cat", "options": []},
]


def passes(environment: MllmEnvironment, rank: int) -> list[Tensor]:
    """The first process encodes two videos at a time, twice, and asks two questions; the other less of all."""
    made: list[Tensor] = []
    for begin in range(2 - rank):
        examples = [
            {"frames": noise(environment, 10 * rank + begin + number), "questions": ASKED[: 3 - rank]}
            for number in range(2 - rank)
        ]
        batch = environment.encode(examples)
        lengths = batch.videos.lengths
        kept = torch.cat(
            [
                start + torch.arange(0, length, 3)
                for start, length in zip(batch.videos.cu_seqlens[:-1].tolist(), lengths.tolist(), strict=True)
            ]
        )
        keep = torch.tensor([[len(range(0, length, 3)) for length in lengths.tolist()]], dtype=torch.int32)
        outcome = environment.answer(batch, Selection(kept, keep), divergence=rank == 0, full=rank == 1)
        made += [batch.videos.tokens, outcome.log_prob, outcome.correct]
    return made


def noise(environment: MllmEnvironment, seed: int) -> Tensor:
    shape = environment.num_frames, 16, 16, 3
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def environment(family: Family, sharding: Sharding | None) -> MllmEnvironment:
    return MllmEnvironment(
        family.model, TinyProcessor(family), None, num_frames=4, max_tokens_per_forward=200, sharding=sharding
    )


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for name, make in FAMILIES.items():
        whole = environment(make(), None)
        want = passes(whole, rank)
        family = make()
        family.model.load_state_dict(whole.model.state_dict())
        shared = environment(family, Sharding(torch.device("cpu")))
        weights = sum(weight.numel() for weight in whole.model.parameters())
        parts = [weight for weight in shared.model.parameters() if hasattr(weight, "to_local")]
        for _ in range(2):
            got = passes(shared, rank)
            shared.wait()
            assert len(got) == len(want), name
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), name
        held = sum(weight.to_local().numel() for weight in parts)
        assert 0 < held < 0.7 * sum(weight.numel() for weight in parts) <= 0.7 * weights, name
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
