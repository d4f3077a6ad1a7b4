"""``score data check``: everything that a training would read, read ahead, and what of it is broken."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from score_video.command_line import one_line
from score_video.errors import ScoreError
from score_video.files import check_output_file, write_json
from score_video.mllm.conversation import read_clip
from score_video.mllm.environment import MAX_PIXELS
from score_video.progress import Progress
from score_video.rl.curriculum import as_pseudo_video, image_errors, why_unreadable
from score_video.rl.environment import UnreadableError
from score_video.rl.rows import rows_of
from score_video.video import VideoError


@dataclass(frozen=True)
class Broken:
    """A row that a training cannot use.

    Attributes:
        where: the file of questions and the line or row.
        file: the video or image; None where the row itself is wrong.
        reason: one line.
    """

    where: str
    file: str | None
    reason: str


@dataclass
class _Medium:
    """A video or image, and the rows that are about it."""

    kind: str
    source: Any
    rows: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        if isinstance(self.source, Mapping):
            return str(self.source["path"] or "(in the row)")
        return str(self.source)


def run(
    sources: Sequence[str],
    *,
    num_frames: int = 16,
    split: str = "train",
    media: Path | None = None,
    workers: int | None = None,
    json_file: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Reads all rows, and each video and image once, several at a time.

    Args:
        sources: what :func:`score_video.rl.data.load_examples` takes.
        num_frames: sampled of each video, at least 1: the training's ``num_frames``.
        split: the split to read of data sets on the hub.
        media: the folder that relative paths start from; None: each file's own.
        workers: how many files are read at a time; None: one for each core.
        json_file: a file for what is returned.
        progress: told how far things are.

    Returns:
        What ``--json`` writes: how many ``sources``, ``rows`` and ``files`` there are, ``num_frames``, and ``broken``,
        a list of {"where", "file", "reason"} in the order of the rows.

    Raises:
        ValueError, OSError: a number that is not above 0, a source that is none, a report that cannot be written.
    """
    if find_spec("datasets") is None:
        raise ScoreError("reading data needs datasets: install score-video[train]")
    import datasets

    datasets.disable_progress_bars()  # there is one of ours
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it would say is raised too
    for name, value in (("frames", num_frames), ("workers", 1 if workers is None else workers)):
        if value < 1:
            raise ScoreError(f"{name} must be at least 1, got {value}")
    if json_file is not None:
        check_output_file(json_file)
    broken: dict[str, Broken] = {}
    files: dict[tuple[str, str], _Medium] = {}
    order: dict[str, None] = {}
    for source in sources:
        before = len(order)
        for where, make in rows_of(source, split=split, media=media):
            order[where] = None
            try:
                example = make()
            except (OSError, ValueError) as error:
                broken[where] = Broken(where, None, str(error).removeprefix(where).lstrip(",: "))
                continue
            kind = "video" if example["video"] is not None else "image"
            medium = _Medium(kind, example[kind])
            # an image that stands in its row is one of its own
            key = where if medium.file.startswith("(") else medium.file
            files.setdefault((kind, key), medium).rows.append(where)
        if len(order) == before:
            raise ScoreError(f"{source}: is empty")
    for medium, reason in _unreadable([*files.values()], num_frames, workers or os.cpu_count() or 1, progress):
        broken |= {where: Broken(where, medium.file, reason) for where in medium.rows}
    report = {
        "sources": [str(source) for source in sources],
        "rows": len(order),
        "files": len(files),
        "num_frames": num_frames,
        "broken": [asdict(broken[where]) for where in order if where in broken],
    }
    if json_file is not None:
        write_json(json_file, report)
    return report


def print_report(report: Mapping[str, Any]) -> None:
    """A line for each broken row, and one for all."""
    for entry in report["broken"]:
        print(one_line(f"{entry['where']}: {entry['reason']}"))
    number = len(report["broken"])
    found = f"{number} of {report['rows']} rows cannot be used" if number else "nothing is broken"
    print(f"{found}: {report['rows']} rows, {report['files']} videos and images, {report['num_frames']} frames of each")


def _unreadable(
    media: Sequence[_Medium], num_frames: int, workers: int, progress: Progress | None
) -> Iterator[tuple[_Medium, str]]:
    """Those that cannot be read, and why."""
    if progress:
        progress("reading", 0, len(media))
    with ThreadPoolExecutor(workers) as pool:  # libav and Pillow let go of the interpreter while they decode
        running = {pool.submit(_why_unreadable, medium, num_frames): medium for medium in media}
        try:
            for done, future in enumerate(as_completed(running), start=1):
                if reason := future.result():
                    yield running[future], reason
                if progress:
                    progress("reading", done, len(media))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _why_unreadable(medium: _Medium, num_frames: int) -> str | None:
    """Reads it as :class:`score_video.mllm.environment.MllmEnvironment` does."""
    try:
        if medium.kind == "video":
            read_clip(medium.source, num_frames, MAX_PIXELS)
        else:
            as_pseudo_video({"image": _image(medium.source)}, 0, 1, "repeat")
    except (UnreadableError, VideoError) as error:
        return str(error)
    return None


def _image(source: Any) -> Any:
    """A path, or the bytes of one that stands in its row."""
    from io import BytesIO

    from PIL import Image

    if not isinstance(source, Mapping) or source["bytes"] is None:
        return source["path"] if isinstance(source, Mapping) else source
    try:
        return Image.open(BytesIO(source["bytes"]))
    except image_errors() as error:
        raise UnreadableError(f"its image: {why_unreadable(error)}") from error
