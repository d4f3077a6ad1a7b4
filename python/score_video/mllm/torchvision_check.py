"""Whether transformers' video processors can run. Imports nothing of transformers: a bad torchvision breaks it."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version


def check_torchvision() -> None:
    """Raises ImportError, which says what to install, where torchvision is missing or does not load.

    Every video processor of transformers (seen in 5.18 to 5.23) is written on torchvision and has no other backend;
    image processors have one. A torchvision built for another torch is worse than none: with it even transformers' own
    models cannot be imported.
    """
    try:
        import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ImportError(
            "transformers' video processors need torchvision, which is not installed: install the torchvision that "
            f"belongs to torch {_version('torch')}, from where that torch came from"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:  # its library of ops does not load, or lacks ops
        raise ImportError(
            f"torchvision {_version('torchvision')} does not load beside torch {_version('torch')} ({error}): install "
            "the torchvision that belongs to this torch, from where the torch came from"
        ) from None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
