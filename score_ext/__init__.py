"""Native ops for video token compression: the typed functions over ``torch.ops.score.*``.

Importing this package loads the compiled ops, so that ``torch.ops.score.*`` is there, with fakes for torch.compile and
gradients where they exist. :mod:`score_ext.reference` has every op in plain torch.
"""

from score_ext import _autograd, _fakes, _relative_autograd, budget  # noqa: F401  (registrations)

# Names of 0.1, exported for those who import them still, and left out of __all__.
from score_ext._deprecated import draw as draw
from score_ext._deprecated import plackett_luce as plackett_luce
from score_ext._deprecated import sample as sample
from score_ext._library import build_info, cuda_library_loaded
from score_ext.ops import (
    compress,
    count_sketch,
    divprune,
    gather,
    gumbel_topk,
    gumbel_topk_with_log_prob,
    plackett_luce_log_prob,
    policy_logits,
    policy_state,
    sample_bernoulli,
    select,
    surprise,
    thumbnails,
)
from score_ext.relative import relative_logits, relative_state
from score_ext.results import BernoulliSample, Compressed, GumbelTopk, GumbelTopkWithLogProb

__version__: str = build_info()["version"]

__all__ = [
    "BernoulliSample",
    "Compressed",
    "GumbelTopk",
    "GumbelTopkWithLogProb",
    "budget",
    "build_info",
    "compress",
    "count_sketch",
    "cuda_library_loaded",
    "divprune",
    "gather",
    "gumbel_topk",
    "gumbel_topk_with_log_prob",
    "plackett_luce_log_prob",
    "policy_logits",
    "policy_state",
    "relative_logits",
    "relative_state",
    "sample_bernoulli",
    "select",
    "surprise",
    "thumbnails",
]
