"""``score embed``: videos compressed once, each into a file that ``score ask`` and vLLM take in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from score_video.command_line import one_line
from score_video.commands.ask import DTYPES, fit
from score_video.commands.frames import Frames
from score_video.commands.options import Chosen
from score_video.commands.seen import before_tower_named
from score_video.errors import ScoreError
from score_video.files import sha256_of
from score_video.mllm.ask import check_policy
from score_video.mllm.compressed_video import compress_video, identity_of, read_about
from score_video.mllm.conversation import clip_of_video
from score_video.mllm.load import load_model, load_processor
from score_video.progress import Progress
from score_video.serving.identity import checkpoint_identity, compressor_identity, decider_identity
from score_video.serving.tar_files import write_tars

SUFFIX = ".safetensors"


_COMPARED = {
    "video_hash": "video",
    "model_hash": "model",
    "processor_hash": "model",
    "compressor_hash": "decides",
    "frames": "frames",
}
"""What a file must have been made of to be left as it is -> the name that errors call it by."""


@dataclass(frozen=True)
class EmbedOptions:
    """How videos are read and compressed.

    Attributes:
        device: where the model runs.
        dtype: the model's, a key of ``DTYPES``.
        frames: which frames of a video are read.
        size: longest side that frames are read at, in pixels; None: as they are.
    """

    device: torch.device
    dtype: str = "auto"
    frames: Frames = field(default_factory=Frames)
    size: int | None = None


@dataclass(frozen=True)
class Shard:
    """The share of one process of several that work side by side: every ``of``-th video, from the ``number``-th on.

    Raises:
        ScoreError: there is no such share.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ScoreError(f"--shard must be I/N with I from 1 to N, got {self.number}/{self.of}")

    @staticmethod
    def read(text: str) -> Shard:
        """Of ``I/N``, as in 2/8."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal()):
            raise ScoreError(f"--shard must be I/N, as in 2/8, got {text!r}")
        return Shard(int(number), int(of))

    def places(self, total: int) -> range:
        """Which of so many videos are its own."""
        return range(self.number - 1, total, self.of)


ALL = Shard()
"""What one process alone reads."""


@dataclass(frozen=True)
class Embedded:
    """What became of the videos.

    Attributes:
        made: names of the files that were written.
        there: files that were there already, of the same video, model and compressor.
        broken: video -> why it could not be read.
        tokens, kept: how many tokens the videos of ``made`` have, and how many of them were kept.
    """

    made: tuple[str, ...]
    there: tuple[str, ...]
    broken: Mapping[str, str]
    tokens: int
    kept: int


def output_names(videos: Sequence[Path]) -> list[str]:
    """The name of each video's file: its own with another ending. Raises ScoreError where two have one."""
    names = [f"{video.stem}{SUFFIX}" for video in videos]
    for name, video in zip(names, videos, strict=True):
        others = [other for other, same in zip(videos, names, strict=True) if same == name and other != video]
        if others or names.count(name) > 1:
            raise ScoreError(f"videos must have different names, got {video} and {(others or [video])[0]}")
    return names


def run(
    videos: Sequence[Path],
    source: str,
    chosen: Chosen,
    options: EmbedOptions,
    out: Path,
    *,
    shard: Shard = ALL,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Embedded:
    """Writes a file for each video, one after the other; what is there already is kept, so that it can be gone on with.

    Args:
        videos: files, of all processes that share the work.
        source: the model's folder or id, as for :func:`score_video.mllm.load.load_model`.
        chosen: decides which tokens are kept; it may not look at a question.
        options: how videos are read.
        out: folder of the files, made if it is not there.
        shard: which of the videos are read.
        overwrite: whether files of another video, model or compressor are replaced.
        progress: told how many videos are done.

    Raises:
        ScoreError, OSError: an unusable model or compressor; a file in ``out`` that was made of something else (names
            it and what differs), without ``overwrite``; output that cannot be written.
    """
    names = output_names(videos)
    own = shard.places(len(videos))
    of_all = _about_all(chosen, options)  # before a model is loaded for nothing
    processor = load_processor(source)
    model = load_model(source, options.device, DTYPES[options.dtype])
    check_policy(model, chosen.compressor.method, chosen.name)
    identity, checkpoint = identity_of(model, processor), checkpoint_identity(source)
    out.mkdir(parents=True, exist_ok=True)
    made, there, broken, tokens, kept = [], [], {}, 0, 0
    for done, place in enumerate(own):
        video, name = videos[place], names[place]
        if progress is not None:
            progress("videos", done, len(own))
        try:
            about = {**_about(video), **of_all}
            if (out / name).exists() and not overwrite and _is_of(out / name, {**about, **identity}):
                there.append(name)
                continue
            clip = clip_of_video(options.frames.read(video, fit(options.size), lambda done, total: None))
        except _MismatchError:
            raise
        except (ScoreError, OSError) as error:
            broken[str(video)] = str(error)
            continue
        about["checkpoint_hash"] = checkpoint
        compressed = compress_video(model, processor, clip, chosen.compressor, about=about)
        compressed.save(out / name)
        made.append(name)
        tokens, kept = tokens + compressed.num_tokens, kept + len(compressed.index)
    if progress is not None:
        progress("videos", len(own), len(own))
    return Embedded(tuple(made), tuple(there), broken, tokens, kept)


def write_tar_files(videos: Sequence[Path], done: Embedded, out: Path, shard: Shard, megabytes: int) -> list[Path]:
    """Puts the files of a process's videos into tar files beside them, numbered as the videos of all processes are.

    Args:
        videos, out, shard: as :func:`run` had them.
        done: what it returned.
        megabytes: how large a tar file may get.

    Raises:
        ScoreError, OSError: as :func:`score_video.serving.tar_files.write_tars`.
    """
    there = {*done.made, *done.there}
    files = {place: out / name for place, name in enumerate(output_names(videos)) if name in there}
    return write_tars(files, out, f"{shard.number:03d}-of-{shard.of:03d}", megabytes)


class _MismatchError(ScoreError):
    """A file in the output folder is of something else."""


def _about(video: Path) -> dict[str, Any]:
    return {"video": video.name, "video_hash": sha256_of(video)}


def _about_all(chosen: Chosen, options: EmbedOptions) -> dict[str, Any]:
    """What is the same for every video; raises ScoreError for a rule of the user's own."""
    frames = asdict(options.frames)
    before = before_tower_named(chosen.compressor)
    return {
        **({} if before is None else {"before_tower": before}),
        "decides": one_line(chosen.name),
        "compressor_hash": compressor_identity(chosen.compressor),
        "decider_hash": decider_identity(chosen.compressor),
        "selection": chosen.compressor.selection_used,
        "retention": chosen.compressor.plain_retention,
        "frames": {**frames, "size": options.size},
    }


def _is_of(path: Path, about: Mapping[str, Any]) -> bool:
    """Whether a file is of this video, compressor, sampling, model and processor; False where it is damaged.

    Raises:
        _MismatchError: it is of others; names what differs.
    """
    try:
        had = read_about(path)
    except ScoreError:
        return False
    for key, name in _COMPARED.items():
        if had.get(key) != about[key]:
            raise _MismatchError(
                f"{path} must be of {_told(about, key, name)}, and was made of {_told(had, key, name)}: give another "
                "--out, or --overwrite to replace it"
            )
    return True


def _told(about: Mapping[str, Any], key: str, name: str) -> str:
    value = about.get(key)
    word = key.removesuffix("_hash")
    return f"{word} {about.get(name)!r} ({str(value)[:12]})" if key != name else f"{word} {value}"
