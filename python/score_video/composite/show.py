"""Draws what compressors keep of a video of this world: ``python -m score_video.composite.show --help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import torch
import typer

from score_video.command_line import run_module
from score_video.composite.environment import CompositeEnvironment
from score_video.composite.evaluate import choose_by, oracle, things_missed
from score_video.composite.features import VIDEOS_IN_A_FILE
from score_video.composite.reader import shipped_reader
from score_video.composite.scenery import FRAMES
from score_video.composite.world import COLUMNS, NOT_ASKED, PARTITIONS, Partition, make_video
from score_video.compressor import Compressor
from score_video.drawing.charts import Shown, draw_kept
from score_video.files import output_file
from score_video.rl import rollouts
from score_video.rl.environment import Selection


def main(
    media: Annotated[Path, typer.Argument(help="Folder of the media: python -m score_video.composite.media.")],
    features: Annotated[Path, typer.Argument(help="Folder of features, of the reader's tower.")],
    number: Annotated[int, typer.Argument(min=0, help="Which video of the partition, from 0.")],
    out: Annotated[Path, typer.Argument(help="The picture to write (.png).")],
    compressor: Annotated[
        list[str] | None, typer.Option(help="A folder, an id, pretrained, or a rule's name. Repeatable.")
    ] = None,
    retention: Annotated[float, typer.Option(help="Fraction of the tokens that are kept.")] = 0.05,
    partition: Annotated[str, typer.Option(help=f"One of {', '.join(PARTITIONS)}.")] = "test",
    reader: Annotated[Path | None, typer.Option(help="Weights in place of those that come with the package.")] = None,
) -> None:
    """Draw a video, and below it what each compressor keeps, with how many questions are answered from that. Orange:
    things that move, flash or are always there, of which it keeps nothing."""
    if partition not in PARTITIONS:
        raise typer.BadParameter(f"must be one of {', '.join(PARTITIONS)}, got {partition}", param_hint="--partition")
    of = cast(Partition, partition)
    made = number // VIDEOS_IN_A_FILE * VIDEOS_IN_A_FILE + VIDEOS_IN_A_FILE
    environment = CompositeEnvironment(reader or shipped_reader(), features, of, made)
    batch = environment.batch(torch.tensor([number]))
    keep = rollouts.budgets(batch.videos, retention)
    names = compressor or ["pretrained", "divprune"]
    chosen = {name: choose_by(Compressor.from_pretrained(name))(batch, keep) for name in names}
    chosen["knows the answers"] = oracle(batch, keep)
    answers = batch.payload.answers
    things = int(things_missed(batch, torch.tensor([], dtype=torch.int64)).any(0).sum())
    rows = []
    for name, index in chosen.items():
        best = environment.log_probabilities(batch, Selection(index, keep[None]))[0].argmax(2)
        right = int(((best == answers) & (answers != NOT_ASKED)).sum())
        kept = torch.zeros(len(batch.videos.tokens), dtype=torch.bool).index_fill_(0, index, True)
        missed = things_missed(batch, index)  # [TOKENS, symbols]
        of_frames, missing = (of.view(FRAMES, COLUMNS, COLUMNS) for of in (kept, missed.any(1)))
        note = f"{int(missed.any(0).sum())} of {things} things missed"
        rows.append(Shown(Path(name).name, of_frames, right, int((answers != NOT_ASKED).sum()), missing, note))
    video = make_video(media, of, number)
    pixels = torch.from_numpy(video.pixels).permute(0, 3, 1, 2).float() / 255
    title = f"{partition} video {number} ({video.source}), {int(keep[0])} of {len(batch.videos.tokens)} tokens"
    with output_file(out) as temporary:
        draw_kept(temporary, pixels, rows, title)


if __name__ == "__main__":
    run_module(main)
