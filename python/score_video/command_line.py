"""What becomes of a command that ends otherwise than well: a line, and an exit status.

The same for ``score`` and for what is run by ``python -m``.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from score_video.errors import ScoreError, ScoreWarning
from score_video.renamed import FormerNameWarning

# The base of typer's errors about the command line, under whatever name the installed release has it
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run_module(main: Callable[..., None]) -> NoReturn:
    """Ends the process with what came of a function whose parameters are the options, as typer reads them."""
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(main)
    path = Path(sys.argv[0])
    name = path.parent.name if path.stem == "__main__" else path.stem
    sys.exit(exit_status(lambda: application(standalone_mode=False), name))


def exit_status(run: Callable[[], Any], name: str, less_memory: str = "") -> int:
    """Runs a command.

    Args:
        run: the command; what it returns is its status if that is an integer.
        name: what its lines begin with.
        less_memory: what takes less of it, for the line on its having run out.

    Returns:
        the exit status: 0; 1 where that is an answer, or after a line on a bug of ours, whose traceback is in a file
        that the line names (``SCORE_DEBUG=1`` shows it, too); 2 after a line on what the user can mend; 130 after
        Ctrl-C.
    """

    def fail(message: str) -> int:
        print(f"{name}: error: {one_line(message)}", file=sys.stderr)
        return 2

    # An end from outside goes through the same clean-up as an error
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with _warnings_in_a_line(name):
            status = run()
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except UsageError as error:
        return fail(error.format_message())  # type: ignore[attr-defined]
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ScoreError as error:
        return fail(str(error))
    except Exception as error:
        # the second and third are torch's, on a CPU and on a GPU
        if (
            isinstance(error, MemoryError)
            or "DefaultCPUAllocator" in str(error)
            or type(error).__name__ == "OutOfMemoryError"
        ):
            return fail(f"not enough memory{less_memory}")
        return _bug(error, name)
    return status if isinstance(status, int) else 0


def one_line(text: str) -> str:
    """Names of files may hold anything, line ends and terminal codes among it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def _warnings_in_a_line(name: str) -> Iterator[None]:
    """Our own warnings, and former names of options and settings, which Python hides, are each one line on stderr,
    once."""
    shown: set[str] = set()
    show = warnings.showwarning

    def one(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if not issubclass(category, (FormerNameWarning, ScoreWarning)):
            show(message, category, *where, **options)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"{name}: warning: {one_line(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", FormerNameWarning)
        warnings.showwarning = one
        yield


def _bug(error: Exception, name: str) -> int:
    """One line on what should not have happened; the traceback goes to a file, which is ours to be sent."""
    text = "".join(traceback.format_exception(error))
    if os.environ.get("SCORE_DEBUG"):
        print(text, end="", file=sys.stderr)
    with tempfile.NamedTemporaryFile(
        "w", prefix="score-bug-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(text)
    said = one_line(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    print(f"{name}: bug: {said} (the traceback is in {file.name}: please report it)", file=sys.stderr)
    return 1


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
