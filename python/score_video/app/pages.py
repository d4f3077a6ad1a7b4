"""What each open page holds: the clips that were uploaded to it, which go when it does and nobody else can name."""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

from score_video.app.folder import UploadFolder
from score_video.errors import ScoreError
from score_video.video.synthetic import write_clip

IDLE_SECONDS = 3600
"""After so long without a request a page's clips are deleted."""

MAX_PAGES = 64
MAX_CLIPS = 8
MAX_AT_ONCE = 2
"""Open pages; clips of one, and uploads to it at a time."""

MAX_DISK_BYTES = 4 * 2**30
"""Of all uploads together."""


class GoneError(ScoreError):
    """A page or clip that there is not, or not any more."""


class TooLargeError(ScoreError):
    """An upload beyond the limit."""


class BusyError(ScoreError):
    """Too much is open or waiting."""


@dataclass(frozen=True)
class ClipFile:
    """A video file.

    Attributes:
        key: what the page calls it by.
        name: what people call it.
        path: the clip's file.
        trusted: whether it came with the package.
        credit: a line on whose work it is; or "".
    """

    key: str
    name: str
    path: Path
    trusted: bool = False
    credit: str = ""


@dataclass
class _Page:
    clips: dict[str, ClipFile] = field(default_factory=dict)
    seen: float = field(default_factory=time.monotonic)


def shown_name(name: str) -> str:
    """Of a file that was uploaded: its last part, printable, of at most 80 characters."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(c if c.isprintable() else "?" for c in last).strip()[:80].strip(". ") or "clip"


class Pages:
    """All open pages, and the folder of their uploads, which is for this process's user alone."""

    def __init__(self, max_bytes: int, forget: Callable[[str], None] = lambda key: None) -> None:
        """max_bytes: of one upload; forget: called with the key of each clip that is deleted."""
        self.max_bytes = max_bytes
        self._forget = forget
        self._pages: dict[str, _Page] = {}
        self._lock = threading.Lock()
        self._writing: dict[Path, str] = {}  # uploads that are not there yet, and their pages
        self._uploads = UploadFolder()
        self.examples = _examples(self.folder)

    @property
    def folder(self) -> Path:
        """Where uploads lie."""
        return self._uploads.path

    def open(self) -> str:
        """A new page's key. Raises BusyError where there are too many."""
        self.sweep()
        key = secrets.token_urlsafe(24)
        with self._lock:
            if len(self._pages) >= MAX_PAGES:
                raise BusyError(f"{MAX_PAGES} pages are open already: close one, or try again later")
            self._pages[key] = _Page()
        return key

    def clip(self, page: str, key: str) -> ClipFile:
        """A clip of a page, or one of the examples. Raises GoneError."""
        for example in self.examples:
            if example.key == key:
                return example
        clip = self._page(page).clips.get(key)
        if clip is None:
            raise GoneError("this clip is not there any more: choose it again")
        return clip

    def check(self, page: str) -> None:
        """Raises GoneError unless the page is open; notes that it is used."""
        self._page(page)

    def new_upload(self, page: str, name: str) -> Upload:
        """A file to write an upload to. Raises BusyError where there is no room for another."""
        clips = self._page(page).clips
        if len(clips) >= MAX_CLIPS:
            self.delete(page, next(iter(clips)))
        with self._lock:
            if list(self._writing.values()).count(page) >= MAX_AT_ONCE:
                raise BusyError(f"{MAX_AT_ONCE} uploads of this page are under way: wait for one of them")
            there = [path for path in self.folder.iterdir() if path not in self._writing]
            used = sum(path.lstat().st_size for path in there)
            if used + (len(self._writing) + 1) * self.max_bytes > MAX_DISK_BYTES:
                raise BusyError("there is no room for another upload now: try again later")
            upload = Upload(self, page, name)
            self._writing[upload.path] = page
        return upload

    def written(self, path: Path) -> None:
        """An upload is whole, or given up."""
        self._writing.pop(path, None)

    def add(self, page: str, clip: ClipFile) -> None:
        """A clip whose file is written."""
        self._page(page).clips[clip.key] = clip

    def delete(self, page: str, key: str) -> None:
        """Deletes a clip of a page, if it is there."""
        clip = self._page(page).clips.pop(key, None)
        if clip is not None:
            self._remove(clip)

    def close(self, page: str) -> None:
        """Deletes a page with all of its clips, if it is there."""
        with self._lock:
            closed = self._pages.pop(page, None)
        for clip in closed.clips.values() if closed else ():
            self._remove(clip)

    def sweep(self) -> None:
        """Closes pages that nobody has used for long."""
        before = time.monotonic() - IDLE_SECONDS
        for page in [key for key, page in list(self._pages.items()) if page.seen < before]:
            self.close(page)

    def shut(self) -> None:
        """Deletes everything."""
        self._uploads.remove()

    def _page(self, key: str) -> _Page:
        with self._lock:
            page = self._pages.get(key)
            if page is None:
                raise GoneError("this page was put away: load it again")
            page.seen = time.monotonic()
            return page

    def _remove(self, clip: ClipFile) -> None:
        clip.path.unlink(missing_ok=True)
        self._forget(clip.key)


class Upload:
    """A file that is being written: in its place with :meth:`finish`, gone with :meth:`abandon`."""

    def __init__(self, pages: Pages, page: str, name: str) -> None:
        self._pages = pages
        self._page = page
        self._name = shown_name(name)
        self._key = secrets.token_urlsafe(24)
        suffix = Path(self._name).suffix.lower()
        # the name on disk is ours; some formats are told by their suffix
        self.path = pages.folder / (self._key + (suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "wb")
        self._bytes = 0

    def write(self, part: bytes) -> None:
        """Raises TooLargeError once there is too much."""
        self._bytes += len(part)
        if self._bytes > self._pages.max_bytes:
            raise TooLargeError(f"the file is larger than {self._pages.max_bytes / 2**20:g} MB: take a shorter clip")
        self._file.write(part)

    def finish(self) -> ClipFile:
        """The clip. Raises ScoreError for an empty file."""
        self._file.close()
        if self._bytes == 0:
            raise ScoreError("the file is empty")
        clip = ClipFile(self._key, self._name, self.path)
        self._pages.add(self._page, clip)
        self._pages.written(self.path)
        return clip

    def abandon(self) -> None:
        """Deletes what was written."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        self._pages.written(self.path)


def _examples(folder: Path) -> tuple[ClipFile, ...]:
    """Clips to begin with: a real one that comes with the package, and one that is rendered."""
    rendered = folder / "example-synthetic.mp4"
    write_clip(rendered)
    shipped = Path(str(files("score_video.app") / "static" / "big-buck-bunny.mp4"))
    credit = "Big Buck Bunny, © 2008 Blender Foundation, bigbuckbunny.org, CC BY 3.0; cut and scaled"
    return (
        ClipFile("example-bunny", "big-buck-bunny.mp4", shipped, trusted=True, credit=credit),
        ClipFile("example-synthetic", "synthetic.mp4", rendered, trusted=True, credit="rendered by this package"),
    )
