"""Files of ``score embed`` in tar files, as WebDataset reads them: for training sets, which are read in order.

A video is a sample of two members, ``NUMBER.safetensors``, the file as it was, and ``NUMBER.json``, what is said in it.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from score_video.errors import ScoreError
from score_video.files import output_file
from score_video.mllm.compressed_video import CompressedVideo, read_about

_BLOCK = 512  # of tar, in bytes


def write_tars(files: Mapping[int, Path], out: Path, name: str, megabytes: int) -> list[Path]:
    """Puts files into tar files ``name-00000.tar``, ``name-00001.tar``, ... of the same bytes each time.

    Args:
        files: by the number that each sample gets; written in its order.
        out: the folder, which exists. Tar files of that name that are there from before are replaced or, where there
            are fewer now, deleted.
        name: what the tar files are called.
        megabytes: how large they may get, 10**6 bytes each; one with a single video in it may be larger.

    Raises:
        ScoreError, OSError: a file is damaged; something cannot be read or written.
    """
    written: list[Path] = []
    for group in _groups(files, megabytes * 10**6):
        path = out / f"{name}-{len(written):05d}.tar"
        with output_file(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in group:
                about = json.dumps(read_about(files[number]), sort_keys=True).encode()
                with files[number].open("rb") as content:
                    _add(archive, f"{number:09d}.safetensors", files[number].stat().st_size, content)
                _add(archive, f"{number:09d}.json", len(about), io.BytesIO(about))
        written.append(path)
    for path in set(out.glob(f"{name}-[0-9][0-9][0-9][0-9][0-9].tar")) - set(written):
        path.unlink()
    return written


def read_tars(tars: Iterable[str | Path], model: Any, processor: Any) -> Iterator[CompressedVideo]:
    """The compressed videos of tar files, one after the other; memory holds one at a time.

    Args:
        tars: files of :func:`write_tars`.
        model, processor: those that the videos were compressed with.

    Raises:
        ScoreError, OSError: a file is no such tar file, or as :meth:`CompressedVideo.load` says.
    """
    for tar in tars:
        try:
            with tarfile.open(tar) as archive, tempfile.TemporaryDirectory(prefix="score-video-") as folder:
                for member in archive:
                    if member.name.endswith(".safetensors") and (content := archive.extractfile(member)) is not None:
                        path = Path(folder) / Path(member.name).name
                        path.write_bytes(content.read())
                        yield CompressedVideo.load(path, model, processor)
                        path.unlink()
        except tarfile.TarError as error:
            raise ScoreError(f"{tar} must be a tar file of score embed: {error}") from None


def _groups(files: Mapping[int, Path], most: int) -> Iterator[list[int]]:
    """Numbers of the files that go together; at least one."""
    group: list[int] = []
    size = 0
    for number, path in sorted(files.items()):
        more = path.stat().st_size + 8 * _BLOCK  # with its headers, what fills up blocks, and the JSON
        if group and size + more > most:
            yield group
            group, size = [], 0
        group.append(number)
        size += more
    if group:
        yield group


def _add(archive: tarfile.TarFile, name: str, size: int, content: Any) -> None:
    member = tarfile.TarInfo(name)  # of no owner and no time, so that the same files make the same bytes
    member.size, member.mode = size, 0o644
    archive.addfile(member, content)
