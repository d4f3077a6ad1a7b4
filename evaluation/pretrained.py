"""``python -m evaluation.pretrained``: the weights that come with the package, by the recipe that comes with them.

That training is the study's policy "never seen" of the first seed, so what is shipped is what docs/results.md measures
on towers that it never saw (to rounding: another processor adds up in another order).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from evaluation.jobs import find_readers, fingerprint, sha256_of
from evaluation.train import train
from score_video.policy.pretrained import PRETRAINED

RECIPE = PRETRAINED / "recipe.json"


def main(
    out: Annotated[Path, typer.Option(help="Folder of the policy; weights in it are replaced.")] = PRETRAINED,
) -> None:
    """Trains the policy that travels, for some minutes, and saves it."""
    recipe = json.loads(RECIPE.read_text())
    readers = {fingerprint(name, sha256_of(path)): path for name, path in find_readers().items()}
    if others := [reader for reader in recipe["readers"] if reader not in readers]:
        print(
            f"error: the recipe is of readers that are not there (name@SHA-256): {', '.join(others)}", file=sys.stderr
        )
        raise typer.Exit(2)
    torch.set_num_threads(1)  # as the study's workers: sums are added up in the same order
    policy, curve = train(readers, recipe)
    policy.save_pretrained(out)
    if out.resolve() != PRETRAINED.resolve():
        shutil.copy(RECIPE, out)
    print(f"{out}: accuracy in training {curve[-1][2]:.3f} at {curve[-1][3]:.1%} of the tokens")


if __name__ == "__main__":
    typer.run(main)
