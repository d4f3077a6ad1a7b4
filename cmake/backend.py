"""The build backend: scikit-build-core, after a look for torch.

Without torch the build cannot succeed, but pip would find that out only after downloading torch's several gigabytes as
a run-time requirement. Looking before anything else turns that into one clear line at once.
"""

from __future__ import annotations

from typing import Any

from find_torch import find_torch
from scikit_build_core import build as _build
from scikit_build_core.build import build_sdist, get_requires_for_build_sdist

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]


def _after_torch(hook: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            find_torch()
        except RuntimeError as error:
            raise SystemExit(f"error: {error}") from None
        return getattr(_build, hook)(*args, **kwargs)

    return call


get_requires_for_build_wheel = _after_torch("get_requires_for_build_wheel")
get_requires_for_build_editable = _after_torch("get_requires_for_build_editable")
prepare_metadata_for_build_wheel = _after_torch("prepare_metadata_for_build_wheel")
prepare_metadata_for_build_editable = _after_torch("prepare_metadata_for_build_editable")
build_wheel = _after_torch("build_wheel")
build_editable = _after_torch("build_editable")
