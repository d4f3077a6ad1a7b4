"""Policies by a recipe, through several readers."""

from __future__ import annotations

import torch
from helpers.readers import tiny_reader

from score_video.miniature import train_policy as module
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.train_policy import SeveralReaders, train_policy
from score_video.rl.environment import Selection


def test_several_readers_take_turns_by_the_first_example() -> None:
    several = [MiniatureEnvironment(tiny_reader(number, token_width=8 + number, layers=1)) for number in range(3)]
    together = SeveralReaders(several)
    data = MiniatureVideos("plain", "train", 0, 10)
    for first in range(6):
        batch = together.encode([data[first], data[9]])
        assert batch.videos.tokens.shape[1] == 8 + first % 3
        everything = Selection(torch.arange(len(batch.videos.tokens)), batch.videos.lengths[None])
        own = several[first % 3]
        expected = own.answer(own.encode([data[first], data[9]]), everything)
        torch.testing.assert_close(together.answer(batch, everything).log_prob, expected.log_prob)


def test_a_policy_of_one_reader_is_for_its_width_and_frozen() -> None:
    settings = {"max_steps": 2, "per_device_train_batch_size": 2, "num_generations": 2}
    recipe = {"seed": 0, "mixture": {"plain": 1, "static": 3}, "train_videos": 8, "policy": {}, "settings": settings}
    asked: dict[str, int] = {}

    def examples(split: str, seed: int, num_videos: int, one_question: bool) -> MiniatureVideos:
        asked[split] = num_videos
        return module.training_videos(split, seed, num_videos, one_question)

    policy, curve = train_policy(recipe, [MiniatureEnvironment(tiny_reader())], examples)
    assert policy.config.token_width == 8
    assert not policy.training and not any(weight.requires_grad for weight in policy.parameters())
    assert asked == {"plain": 2, "static": 6}
    assert [row[0] for row in curve] == [1, 2]
