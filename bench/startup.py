"""``python -m bench.startup``: processor time of what people wait for before anything begins, each in a new process."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from score_video.provenance import circumstances

SCORE = str(Path(sys.executable).parent / "score")
COMMANDS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "import score_video": (sys.executable, "-c", "import score_video"),
    "import torch": (sys.executable, "-c", "import torch"),
    "the policy of the package": (
        sys.executable,
        "-c",
        "from score_video import Compressor; Compressor.from_pretrained('pretrained')",
    ),
    "score --version": (SCORE, "--version"),
    "score --help": (SCORE, "--help"),
}


def processor_time(command: tuple[str, ...]) -> float:
    """Seconds, of the system too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(
    repeats: Annotated[int, typer.Option(min=1, help="How often each is run, after once unmeasured.")] = 10,
) -> None:
    """Print a table: the least and the median."""
    made = circumstances("torch")
    print(", ".join(f"{name} {value}" for name, value in made.items()))
    print(f"\n{'':28}  least, s  median, s")
    for name, command in COMMANDS.items():
        processor_time(command)
        times = [processor_time(command) for _ in range(repeats)]
        print(f"{name:28}  {min(times):8.3f}  {median(times):9.3f}")


if __name__ == "__main__":
    typer.run(main)
