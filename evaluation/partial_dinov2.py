"""``python -m evaluation.partial_dinov2 FEATURES MEDIA TOWER``: choosing before DINOv2 over real footage, as a table.

As :mod:`evaluation.partial_towers` in the miniature: rules and policies choose from pixels, the tower sees what they
chose alone, with one ring of neighbours, or in whole frames, and the reader of the composite world reads what was
chosen. A kind of policy is trained for each of the three, rewarded for what is answered from a tower that sees so much.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from evaluation.partial_towers import ALONE, HALOS, RING, SETTINGS, WHOLE, Setting, lines
from score_video.command_line import run_module
from score_video.composite.environment import CompositeEnvironment, CompositeVideos
from score_video.composite.pixels import CompositePixelEnvironment
from score_video.composite.reader import Reader, shipped_reader
from score_video.composite.world import Partition
from score_video.provenance import circumstances
from score_video.video.tower import VisionTower, load_tower

RETENTIONS = (0.02, 0.05, 0.1)


def of_composite(
    reader: Reader, features: Path, media: Path, tower: VisionTower, videos: int, train_videos: int, steps: int
) -> Setting:
    """The composite world; so many videos of the test."""

    def seeing(partition: Partition, count: int) -> dict[str, CompositeEnvironment]:
        """For each key of HALOS the environment; what the whole tower makes is kept, and it does not run."""
        partial = {
            sees: CompositePixelEnvironment(reader, features, partition, media, tower, count, HALOS[sees])
            for sees in (RING, ALONE)
        }
        return {WHOLE: CompositeEnvironment(reader, features, partition, count, pixels=True), **partial}

    whole, tested = CompositeEnvironment(reader, features, "test", videos), seeing("test", videos)
    settings = {**SETTINGS, "max_steps": steps, "per_device_train_batch_size": 4}
    recipe = {"policy": {}, "mixture": {"policy": 1.0}, "train_videos": train_videos, "settings": settings}
    return Setting(
        whole=whole,
        after=list(whole.batches()),
        tested=tested,
        before=list(tested[ALONE].batches()),
        trained=seeing("policy", train_videos),
        examples=lambda split, seed, count, one_question: CompositeVideos(count),
        recipe=recipe,
        rewarded=(WHOLE, RING, ALONE),
        retentions=RETENTIONS,
    )


def main(
    features: Annotated[Path, typer.Argument(help="Folder of features of the whole tower, policy and test.")],
    media: Annotated[Path, typer.Argument(help="Folder of the media: python -m score_video.composite.media.")],
    tower: Annotated[str, typer.Argument(help="The tower that made the features, a folder.")],
    videos: Annotated[int, typer.Option(help="How many of the test's, a multiple of 20.")] = 200,
    train_videos: Annotated[int, typer.Option(help="How many to learn from, a multiple of 20.")] = 500,
    steps: Annotated[int, typer.Option(help="Of the trainings.", min=1)] = 100,
    seeds: Annotated[int, typer.Option(help="Policies of each kind.", min=1)] = 2,
) -> None:
    """What choosing before DINOv2 costs, in an hour and a half of a core and 5 GB: accuracies in %; below, points above
    the first row of each."""
    torch.set_num_threads(1)
    print(", ".join(f"{name} {value}" for name, value in circumstances("torch", "transformers").items()), end="\n\n")
    loaded = load_tower(tower, torch.device("cpu"))
    for line in lines(of_composite(shipped_reader(), features, media, loaded, videos, train_videos, steps), seeds):
        print(line, flush=True)


if __name__ == "__main__":
    run_module(main)
