"""``python -m evaluation.pretrained``: the weights that come with the package, from the readers in evaluation/readers.

The training is that of the study's policy "never seen" of the first seed, so what is shipped is what docs/results.md
has measured on towers that it never saw (to rounding: another processor adds up in another order).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from evaluation.experiments import missing_towers, relative
from evaluation.provenance import ROOT
from evaluation.recipe import FULL
from evaluation.study import Study, find_footage, find_readers
from evaluation.train import train
from score_video.miniature.environment import shipped_reader
from score_video.policy.weights import PRETRAINED


def main(
    out: Annotated[Path, typer.Option(help="Folder of the policy; weights in it are replaced.")] = PRETRAINED,
) -> None:
    """Trains the policy that travels, for some minutes, and saves it."""
    docs = ROOT / "docs"
    plan, files = Study(FULL, find_readers(shipped_reader()), find_footage(), docs, docs).plan()
    if missing := missing_towers(plan):
        raise typer.BadParameter(
            f"no reader {', '.join(missing)} in evaluation/readers: make them with evaluation/readers/make.sh"
        )
    torch.set_num_threads(1)  # as the study's workers: sums are added up in the same order
    job = next(job for job in relative(plan) if job.tags == {"tower": "never seen", "seed": FULL.seeds[0]})
    policy, curve = train(files, job.parameters["training"])
    policy.save_pretrained(out)
    print(f"{out}: accuracy in training {curve[-1][2]:.3f} at {curve[-1][3]:.1%} of the tokens")


if __name__ == "__main__":
    typer.run(main)
