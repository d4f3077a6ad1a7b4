"""Reads frames of a file that a stranger may have made: in a process of its own, with bounds on time and memory.

The reader refuses hostile files by itself (:mod:`score_video.video`). Should one crash the decoder all the same, or
keep it busy, that process ends and the server goes on.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from score_video.errors import ScoreError
from score_video.video.patches import fit_to_patches
from score_video.video.sampling import SampledVideo, SourceFacts, read_frames

SECONDS = 60
"""How long a file may take to be read."""

MEMORY = 6 * 2**30
"""Bytes of address space that reading may take; libav's threads reserve some that they never use."""


@dataclass(frozen=True)
class Cut:
    """How a video is cut into tokens.

    Attributes:
        frames: how many.
        size: their longest side, in pixels.
        patch: side of a patch, in pixels; 1 where somebody else makes the patches; 0 where in addition smaller frames
            stay as they are, which ``score ask`` leaves to the model's processor.
    """

    frames: int = 32
    size: int = 448
    patch: int = 28

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) to which frames are scaled."""
        if self.patch == 0 and max(height, width) <= self.size:
            return height, width
        return fit_to_patches(height, width, patch=max(1, self.patch), size=self.size)


def read(path: Path, cut: Cut, *, seconds: float = SECONDS) -> SampledVideo:
    """:func:`score_video.video.read_frames` in a process of its own.

    Raises:
        ScoreError: the file cannot be used. Its path is not in the message.
    """
    if path.is_symlink() or not path.is_file():
        raise ScoreError("the clip is not there any more: choose it again")
    command = [sys.executable, "-m", "score_video.app.decoding", str(path), *map(str, asdict(cut).values())]
    try:
        # stderr is libav's, about the file
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ScoreError(f"the clip takes more than {seconds:g} s to read: take a shorter one") from None
    head, _, body = done.stdout.partition(b"\n")
    try:
        facts: dict[str, Any] = json.loads(head)
    except ValueError:
        raise ScoreError("the clip cannot be read: its decoder gave up on it") from None
    if "error" in facts:
        raise ScoreError(facts["error"])
    shape = facts.pop("shape")
    size = int(np.prod(shape))
    return SampledVideo(
        frames=np.frombuffer(bytearray(body[:size]), np.uint8).reshape(shape),
        timestamps=np.array(facts.pop("timestamps"), np.float64),
        source=SourceFacts(**facts.pop("source")),
        **facts,
    )


def sample(path: Path, cut: Cut) -> SampledVideo:
    """The same in this process: for files that came with the package."""
    return read_frames(path, cut.fit, num_frames=cut.frames)


def _main() -> None:
    """Writes a line of JSON, and after it the frames."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (4 * SECONDS, 4 * SECONDS))
    path, cut = Path(sys.argv[1]), Cut(*map(int, sys.argv[2:]))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed is not for the parent
    try:
        video = read_frames(path, cut.fit, num_frames=cut.frames)
    except (ScoreError, MemoryError) as error:
        said = str(error).replace(f"{path}: ", "").replace(str(path), "the clip")
        out.write(json.dumps({"error": said or "the clip takes too much memory"}).encode() + b"\n")
    else:
        facts = {
            "shape": video.frames.shape,
            "timestamps": video.timestamps.tolist(),
            "source": asdict(video.source),
            "decoded": video.decoded,
            "damaged": video.damaged,
            "on_display": video.on_display,
        }
        out.write(json.dumps(facts).encode() + b"\n")
        out.write(video.frames.tobytes())
    out.close()


if __name__ == "__main__":
    _main()
