"""Videos after the vision tower, kept in a folder: the tower is nearly all of the work, and is done once.

``python -m score_video.composite.features MEDIA TOWER OUT PARTITION VIDEOS`` goes on where it was stopped, and several
may run at once on shares of the videos.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from score_video.before_tower import Gate
from score_video.command_line import run_module
from score_video.composite.world import COLUMNS, PARTITIONS, TOKENS, Partition, make_video
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.files import output_file
from score_video.video.partial_tower import check_partial, encode_seen, thumbnails_of
from score_video.video.tower import VisionTower, load_tower

VIDEOS_IN_A_FILE = 20
_TENSORS, _SEEN, _PICTURES = ("tokens", "shown", "live", "answers"), ("kept", "encoded"), ("thumbnails",)
_GATE = "gate"  # its folder, among the features
WORLD = 2
"""Goes up with every change of what a video of some number shows: features of another world are refused."""


@dataclass(frozen=True)
class Features:
    """V videos after the tower.

    Attributes:
        tokens: float16 [V, TOKENS, D].
        shown: uint8 [V, TOKENS, symbols], see :class:`~score_video.composite.world.Video`.
        live: uint8 [V, TOKENS].
        answers: int64 [V, tasks].
        sources: V of them.
        kept, encoded: bool [V, TOKENS], behind a gate: what it kept, and what the tower saw, with the halo; ``tokens``
            that it did not keep are filled in. None: the tower saw everything.
        thumbnails: float16 [V, TOKENS, W], what a gate chooses from, where the tower saw everything. None in files that
            were made before these were kept.
    """

    tokens: Tensor
    shown: Tensor
    live: Tensor
    answers: Tensor
    sources: Sequence[str]
    kept: Tensor | None = None
    encoded: Tensor | None = None
    thumbnails: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def alive(self) -> Tensor:
        """bool [V, symbols], which things move or flash. Not those that are parked, although something that lives may
        pass through their patches: one that lives has no more pixels in a patch than live there, wherever it is."""
        return (self.shown <= self.live[:, :, None]).all(1)

    def at(self, numbers: Tensor) -> Features:
        """Those of int64 numbers."""
        optional = {name: getattr(self, name) for name in (*_SEEN, *_PICTURES)}
        return Features(
            self.tokens[numbers],
            self.shown[numbers],
            self.live[numbers],
            self.answers[numbers],
            [self.sources[number] for number in numbers.tolist()],
            **{name: values[numbers] for name, values in optional.items() if values is not None},
        )


def make_features(
    media: Path,
    tower: VisionTower,
    out: Path,
    partition: Partition,
    videos: range,
    gate: Gate | None = None,
    merge: int = 1,
) -> None:
    """Makes videos and runs the tower on them, file by file; files that are there stay.

    Args:
        media: folder of the media.
        tower: must make a token of each of its patches; frames are scaled so that they have 9 x 9 tokens.
        out: the folder to write to, made if it is not there; one of its own for each gate.
        partition: a name in PARTITIONS.
        videos: their numbers; both ends are multiples of 20.
        gate: chooses what the tower sees, and is kept beside the features (:func:`kept_gate`). None: it sees
            everything.
        merge: a token is so many by so many of the tower's, side by side: as Qwen's towers have them before their last
            layers.

    Raises:
        ScoreError: a medium is missing, the tower makes another number of tokens, cannot be run in part, or is to be
            and its tokens are merged; or the features that are there are behind another gate.
    """
    _check_ends(videos)
    if gate is not None and merge != 1:
        raise ScoreError(f"merge must be 1 behind a gate, got {merge}")
    out.mkdir(parents=True, exist_ok=True)
    if gate is not None:
        check_partial(tower)
        _keep_gate(out, gate)
    tower = fitted(tower, merge)
    of_tower = fingerprint(tower) + (f"-merged-{merge}" if merge > 1 else "")
    for first in track(videos[::VIDEOS_IN_A_FILE], description=partition):
        path = _file(out, partition, first)
        if path.exists():
            if _read_about(path)[0] != of_tower:
                raise _other(path)
            continue
        made = [make_video(media, partition, number) for number in range(first, first + VIDEOS_IN_A_FILE)]
        tensors = {
            **_encoded(tower, [video.pixels for video in made], gate, merge),
            "shown": torch.stack([torch.from_numpy(video.shown) for video in made]),
            "live": torch.stack([torch.from_numpy(video.live) for video in made]),
            "answers": torch.stack([torch.from_numpy(video.answers) for video in made]),
        }
        sources = json.dumps([video.source for video in made])
        about = {"about": json.dumps({"world": WORLD, "tower": of_tower}), "sources": sources}
        with output_file(path) as temporary:
            temporary.write_bytes(save(tensors, about))


def _check_ends(videos: range) -> None:
    if videos.start % VIDEOS_IN_A_FILE or videos.stop % VIDEOS_IN_A_FILE:
        raise ScoreError(f"videos must begin and end at multiples of {VIDEOS_IN_A_FILE}, got {videos}")


def _keep_gate(folder: Path, gate: Gate) -> None:
    """Writes what chose into a folder of features. Raises ScoreError where another one is there, or it is code."""
    if not isinstance(gate.selector, Compressor):
        raise ScoreError(f"before_tower must be a policy or a named rule for features to be kept, got {gate.name}")
    if not (folder / _GATE).exists():
        whole = Compressor("uniform", gate.selector.retention, before_tower=gate.selector, halo=gate.halo)
        whole.save_pretrained(folder / _GATE)
    if kept_gate(folder).identity() != gate.identity():
        raise ScoreError(f"{folder} has features behind another gate: write to another folder, or delete it")


def kept_gate(folder: Path) -> Gate:
    """What chose before the tower made the features in a folder. Raises ScoreError, OSError where nothing did."""
    gate = Compressor.from_pretrained(folder / _GATE).gate
    if gate is None:
        raise ScoreError(f"{folder / _GATE} must be a compressor with before_tower, got one without")
    return gate


def _encoded(
    tower: VisionTower, videos: Sequence[npt.NDArray[np.uint8]], gate: Gate | None, merge: int
) -> dict[str, Tensor]:
    """What the tower makes of videos, uint8 [T, H, W, 3] each."""
    if gate is not None:
        parts = [encode_seen(tower, tower.pixels(video), gate) for video in videos]
        masks = [torch.zeros(2, TOKENS, dtype=torch.bool) for _ in parts]
        for mask, (_, seen) in zip(masks, parts, strict=True):
            mask[0, seen.kept.index.cpu()] = mask[1, seen.encoded.cpu()] = True
        both = dict(zip(_SEEN, torch.stack(masks, 1), strict=True))
        return {"tokens": torch.stack([tokens.to("cpu", torch.float16) for tokens, _ in parts]), **both}
    tokens = [tower.encode(video).tokens.to("cpu", torch.float16) for video in videos]
    for own in tokens:
        if len(own) != TOKENS * merge**2:
            raise ScoreError(f"tower must make {TOKENS * merge**2} tokens of a video, {tower.name} makes {len(own)}")
    if merge > 1:  # thumbnails are of patches
        return {"tokens": torch.stack([merged(own, merge) for own in tokens])}
    pictures = [thumbnails_of(tower, tower.pixels(video)).tokens.to("cpu", torch.float16) for video in videos]
    return {"tokens": torch.stack(tokens), "thumbnails": torch.stack(pictures)}


def merged(tokens: Tensor, merge: int) -> Tensor:
    """[TOKENS * merge^2, D] of a video -> [TOKENS, merge^2 * D]: each the ``merge`` x ``merge`` there, side by side."""
    split = tokens.view(-1, COLUMNS, merge, COLUMNS, merge, tokens.shape[1])
    return split.transpose(2, 3).reshape(TOKENS, -1)


def load_features(folder: Path, partition: Partition, videos: range) -> Features:
    """Features that :func:`make_features` left.

    Args:
        folder: path of the folder that they are in.
        partition: a name in PARTITIONS.
        videos: their numbers; both ends are multiples of 20.

    Raises:
        ScoreError: they are missing, or of another world than this release's; or other ends.
    """
    _check_ends(videos)
    if not videos:
        raise ScoreError(f"videos must not be empty, got {videos}")
    parts: list[dict[str, Tensor]] = []
    sources: list[str] = []
    for first in videos[::VIDEOS_IN_A_FILE]:
        path = _file(folder, partition, first)
        sources += _read_about(path)[1]
        with safe_open(path, framework="pt") as file:
            there = set(file.keys())
            parts.append({name: file.get_tensor(name) for name in (*_TENSORS, *_SEEN, *_PICTURES) if name in there})
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Features(**joined, sources=sources)


def videos_made(folder: Path, partition: Partition) -> int:
    """How many videos of a partition there are in a folder, from the first on without a gap."""
    firsts = itertools.count(0, VIDEOS_IN_A_FILE)
    return next(first for first in firsts if not _file(folder, partition, first).is_file())


def tower_of(folder: Path, partition: Partition) -> str:
    """Fingerprint of the tower that made the features of a partition; raises ScoreError where there are none."""
    return _read_about(_file(folder, partition, 0))[0]


def fitted(tower: VisionTower, merge: int = 1) -> VisionTower:
    """The same for frames of which it makes COLUMNS x COLUMNS tokens, once they are merged."""
    side = COLUMNS * merge * tower.patch
    return replace(tower, height=side, width=side)


def fingerprint(tower: VisionTower) -> str:
    """Tells towers apart: of all weights, and of how pixels are normalised."""
    digest = hashlib.sha256(repr((tower.mean, tower.std, tower.patch)).encode())
    for name, weight in tower.model.state_dict().items():
        data = weight.detach().cpu().contiguous().flatten()  # a view of bytes wants a dimension, counts have none
        digest.update(name.encode() + data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _file(folder: Path, partition: Partition, first: int) -> Path:
    return folder / f"{partition}-{first:05d}.safetensors"


def _read_about(path: Path) -> tuple[str, list[str]]:
    """Fingerprint of the tower and sources of the videos of a file of this world; raises ScoreError if it is not."""
    if not path.is_file():
        raise ScoreError(f"{path} is missing: python -m score_video.composite.features makes it")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["about"])
    if about["world"] != WORLD:
        raise _other(path)
    return about["tower"], json.loads(metadata["sources"])


def _other(path: Path) -> ScoreError:
    return ScoreError(f"{path} is of another world or tower: write to another folder, or delete it")


def main(
    media: Annotated[Path, typer.Argument(help="Folder of the media: python -m score_video.composite.media.")],
    tower: Annotated[str, typer.Argument(help="A folder or an id of transformers: DINOv2, SigLIP, CLIP, ViT...")],
    out: Annotated[Path, typer.Argument(help="Folder that the features are kept in.")],
    partition: Annotated[str, typer.Argument(help=f"One of {', '.join(get_args(Partition))}.")],
    last: Annotated[int, typer.Argument(help="How many videos, a multiple of 20.")],
    first: Annotated[int, typer.Option(help="Number of the first video, a multiple of 20.")] = 0,
    before_tower: Annotated[
        str | None,
        typer.Option(
            help="NAME:RETENTION, what the tower is to see: a method, pretrained or a folder. Kept in a folder in OUT, "
            "called after it."
        ),
    ] = None,
    halo: Annotated[int, typer.Option(help="Rings of neighbours that it sees besides.", min=0)] = 0,
    merge: Annotated[
        int, typer.Option(help="A token is so many by so many of the tower's, side by side, of larger frames.", min=1)
    ] = 1,
) -> None:
    """Make videos and keep what the tower makes of them: a second a video on one core for DINOv2-small."""
    if partition not in PARTITIONS:
        raise typer.BadParameter(f"must be one of {', '.join(PARTITIONS)}, got {partition}", param_hint="PARTITION")
    torch.set_num_threads(1)
    gate = None
    if before_tower is not None:
        name, _, share = before_tower.rpartition(":")
        try:
            retention = float(share)
        except ValueError:
            raise typer.BadParameter(f"must be NAME:RETENTION, got {before_tower}", param_hint="BEFORE_TOWER") from None
        gate = Gate(Compressor.from_pretrained(name, retention=retention), halo, name)
        out /= f"{Path(name).name}-{retention}-halo-{halo}"
    videos = range(first, last)
    make_features(media, load_tower(tower, torch.device("cpu")), out, cast(Partition, partition), videos, gate, merge)


if __name__ == "__main__":
    run_module(main)
