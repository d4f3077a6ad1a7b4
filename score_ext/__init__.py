"""Native ops for video token compression: the typed functions over ``torch.ops.score.*``.

Importing this package loads the compiled ops, so that ``torch.ops.score.*`` is there, with fakes for torch.compile and
gradients where they exist. :mod:`score_ext.reference` has every op in plain torch.
"""

from score_ext import _autograd, _fakes, budget  # noqa: F401  (registrations)
from score_ext._library import build_info, cuda_library_loaded
from score_ext.ops import (
    compress,
    draw,
    gather,
    plackett_luce,
    policy_logits,
    policy_state,
    sample,
    sample_bernoulli,
    select,
    surprise,
)

__version__: str = build_info()["version"]

__all__ = [
    "budget",
    "build_info",
    "compress",
    "cuda_library_loaded",
    "draw",
    "gather",
    "plackett_luce",
    "policy_logits",
    "policy_state",
    "sample",
    "sample_bernoulli",
    "select",
    "surprise",
]
