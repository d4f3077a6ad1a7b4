"""Loads the compiled op libraries."""

from __future__ import annotations

import importlib.util

import torch

from score_ext import _native


def _load(name: str) -> bool:
    # find_spec and not a path beside this file: in an editable install the libraries lie in the build folder.
    spec = importlib.util.find_spec(f"score_ext.{name}")
    if spec is None or spec.origin is None:
        return False
    torch.ops.load_library(spec.origin)
    return True


if not _load("_ops"):
    raise ImportError("score_ext is installed without its compiled ops (_ops.so); install score-video again")

# The CUDA library needs libtorch_cuda.so, which only a torch built with CUDA has.
_cuda_loaded = torch.version.cuda is not None and _load("_ops_cuda")


def cuda_library_loaded() -> bool:
    """Whether the CUDA kernels are loaded: they were built, and this torch has CUDA."""
    return _cuda_loaded


def build_info() -> dict[str, str]:
    """Facts about the build: ``version``, ``compiler``, ``torch_headers``, ``cuda``, ``cuda_architectures``.

    ``cuda`` and ``cuda_architectures`` are empty where the CUDA kernels were not built.
    """
    return _native.build_info()
