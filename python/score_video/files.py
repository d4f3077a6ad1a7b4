"""An output folder that is either there and whole, or not there; and what is said where one cannot be written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WRITERS_ERROR = re.compile("inline_container|PytorchStreamWriter|iostream error|basic_ios")  # torch.save's
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # where the error names no file
_PROBE = 2**20  # bytes


@contextmanager
def output_folder(out: Path, files: Collection[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside ``out`` to write in, and puts it in its place once the block has succeeded.

    Whatever ends the block otherwise, the temporary folder goes and ``out`` stays as it was.

    Args:
        out: the folder to make; its parent exists. May exist if it is empty, or with ``overwrite`` if it holds nothing
            but ``files``, so that nobody's other files are ever deleted.
        files: names of all files that may be written.
        overwrite: whether such a folder is replaced.

    Raises:
        FileExistsError, NotADirectoryError, FileNotFoundError: ``out`` is in the way, or its parent is not there.
        OSError: something could not be written; the error names ``out``.
    """
    check_output_folder(out, files, overwrite=overwrite)
    target = out.resolve()
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    try:
        with write_errors(out, temporary):
            temporary.mkdir()
            yield temporary
            _replace(target, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_output_folder(out: Path, files: Collection[str], *, overwrite: bool = False) -> None:
    """Sees that :func:`output_folder` will take ``out``, for what takes long before it is written; makes nothing.

    Raises:
        FileExistsError, NotADirectoryError, FileNotFoundError: as there.
    """
    target = out.resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "the folder it should be made in does not exist", str(out))
    if not target.exists():
        return
    if not target.is_dir():
        raise NotADirectoryError(20, "exists and is not a folder", str(out))
    present = sorted(entry.name for entry in target.iterdir())
    # said first: --overwrite would not help
    if others := [name for name in present if name not in files]:
        raise FileExistsError(
            17, f"is not empty: holds files that are not from here ({others[0]}), and is not overwritten", str(out)
        )
    if present and not overwrite:
        raise FileExistsError(17, "exists and is not empty (--overwrite replaces it)", str(out))


def _replace(target: Path, temporary: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        return
    old = temporary.with_name(temporary.name + "-old")
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)


@contextmanager
def output_file(out: Path) -> Iterator[Path]:
    """Gives the name of a temporary file beside ``out``, and puts it in its place once the block has succeeded.

    A file that was there is replaced; whatever ends the block otherwise, it stays as it was.

    Raises:
        FileNotFoundError, IsADirectoryError: ``out`` is in no folder, or is one.
        OSError: it could not be written; the error names ``out``.
    """
    check_output_file(out)
    temporary = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    try:
        with write_errors(out, temporary):
            yield temporary
            temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(out: Path, value: Any) -> None:
    """Writes a report, all of it or nothing. Raises OSError as :func:`output_file`."""
    with output_file(out) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def check_output_file(out: Path) -> None:
    """Sees that :func:`output_file` will take ``out``; makes nothing. Raises FileNotFoundError, IsADirectoryError."""
    if not out.parent.is_dir():
        raise FileNotFoundError(2, "the folder it should be made in does not exist", str(out))
    if out.is_dir():
        raise IsADirectoryError(21, "is a folder", str(out))


def check_folder_to_write(folder: Path) -> None:
    """Sees that files can be written into a folder, which may not be there yet with some of those it is in; makes none.

    Raises:
        NotADirectoryError, PermissionError: they cannot.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(20, "exists and is not a folder", str(folder))
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(20, "cannot be made: a part of its path is not a folder", str(folder))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(13, "may not be written", str(folder))


@contextmanager
def write_errors(out: Path, written: Path) -> Iterator[None]:
    """Whatever stops the block from writing becomes an OSError that names ``out`` and says what the system said.

    torch.save, safetensors and Pillow have errors of their own for a disk without room, and not all of them tell what
    is the matter: then a file is written there too, and meets the same. Every other error passes, among them those
    about other files.

    Args:
        out: the path that errors name.
        written: the file or folder that is being written to that end.
    """
    try:
        yield
    except Exception as error:
        number = _errno_of(error, written)
        if number is None:
            raise
        said = error.strerror if isinstance(error, OSError) else None
        raise OSError(number, said or os.strerror(number), str(out)) from error


def _errno_of(error: Exception, written: Path) -> int | None:
    """The system's number behind an error of writing; None for an error of another kind."""
    if isinstance(error, OSError) and error.errno is not None:
        ours = error.errno in _OF_DISKS if error.filename is None else _is_within(error.filename, written)
        return error.errno if ours else None
    if told := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors'
        return int(told[1])
    folder = written if written.is_dir() else written.parent
    if isinstance(error, OSError):
        return _errno_of_writing(folder)
    if isinstance(error, RuntimeError) and _WRITERS_ERROR.search(str(error)):
        return _errno_of_writing(folder) or errno.EIO
    return None


def _is_within(name: object, place: Path) -> bool:
    return isinstance(name, (str, bytes)) and Path(os.fsdecode(name)).resolve().is_relative_to(place.resolve())


def _errno_of_writing(folder: Path) -> int | None:
    """What a file in the folder meets that is larger than all that are in it; None if nothing is in its way."""
    probe = folder / f".probe-{secrets.token_hex(4)}"
    try:
        size = max((file.stat().st_size for file in folder.iterdir() if file.is_file()), default=0) + _PROBE
        with probe.open("wb") as file:
            for _ in range(-(-size // _PROBE)):
                file.write(bytes(_PROBE))
                file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    finally:
        probe.unlink(missing_ok=True)
    return None


def is_text(text: str) -> bool:
    """Whether it can be written in UTF-8; an argument whose bytes were not UTF-8 cannot (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sha256_of(path: Path) -> str:
    """Of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
