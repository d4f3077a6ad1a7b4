"""Says what a score_ext installed in a folder was built for; fails without its CUDA library.

Loaded by path: an editable install of the repository would come before any folder on the import path.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Prints the facts of folder/score_ext, one a line."""
    package = folder / "score_ext"
    if not (package / "_ops_cuda.so").exists():
        sys.exit(f"error: {package} has no CUDA library")
    (native,) = package.glob("_native.*.so")
    spec = importlib.util.spec_from_file_location("score_ext._native", native)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in module.build_info().items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
