"""An output folder that is either there and whole, or not there."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


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
    target = out.resolve()
    _check_target(out, target, files, overwrite)
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    try:
        temporary.mkdir()
        yield temporary
        _replace(target, temporary)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(out)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_target(out: Path, target: Path, files: Collection[str], overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "the folder it should be made in does not exist", str(out))
    if not target.exists():
        return
    if not target.is_dir():
        raise NotADirectoryError(20, "exists and is not a folder", str(out))
    present = sorted(entry.name for entry in target.iterdir())
    if present and not overwrite:
        raise FileExistsError(17, "exists and is not empty (--overwrite replaces it)", str(out))
    if others := [name for name in present if name not in files]:
        raise FileExistsError(17, f"holds files that are not from here ({others[0]}): not overwritten", str(out))


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
    if not out.parent.is_dir():
        raise FileNotFoundError(2, "the folder it should be made in does not exist", str(out))
    if out.is_dir():
        raise IsADirectoryError(21, "is a folder", str(out))
    temporary = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    try:
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(out)) from error
    finally:
        temporary.unlink(missing_ok=True)
