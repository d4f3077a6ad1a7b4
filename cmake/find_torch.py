"""Prints "ROOT;VERSION" of the torch that the package is built for, or says on stderr what to do and exits with 1.

Looks where this interpreter imports from, then in the environment's own site-packages: under pip's build isolation
those are hidden from the import system, but sys.prefix still names them. Never imports torch, which takes seconds.
"""

from __future__ import annotations

import importlib.machinery
import pathlib
import re
import site
import sys

MINIMUM = (2, 10)


def find_torch() -> tuple[pathlib.Path, str]:
    """Returns torch's folder and version; raises RuntimeError with what to do if there is none, or one too old."""
    # The user's own site-packages count only where the interpreter uses them.
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    folders = [*sys.path, *site.getsitepackages([sys.prefix, sys.base_prefix]), *user]
    spec = importlib.machinery.PathFinder.find_spec("torch", folders)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            f"score-video needs torch {MINIMUM[0]}.{MINIMUM[1]} or newer in the environment that it is installed into, "
            f"and found none in {sys.prefix}. Install the build that suits your machine (CPU or CUDA) first, for "
            "example with 'pip install torch', then install score-video again."
        )
    root = pathlib.Path(spec.submodule_search_locations[0])
    text = (root / "version.py").read_text(encoding="utf-8")
    found = re.search(r"__version__ = '(\d+)\.(\d+)([^']*)'", text)
    if found is None:
        raise RuntimeError(f"cannot read torch's version from {root / 'version.py'}")
    if (int(found[1]), int(found[2])) < MINIMUM:
        raise RuntimeError(
            f"score-video needs torch {MINIMUM[0]}.{MINIMUM[1]} or newer, and {sys.prefix} has "
            f"{found[1]}.{found[2]}{found[3]}. Upgrade torch first, then install score-video again."
        )
    return root, f"{found[1]}.{found[2]}{found[3]}"


if __name__ == "__main__":
    try:
        print(*find_torch(), sep=";")
    except RuntimeError as error:
        sys.exit(f"error: {error}")
