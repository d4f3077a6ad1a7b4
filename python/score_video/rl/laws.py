"""Another name of :mod:`score_video.rl.sampling`, for one release."""

import warnings

from score_video.rl.sampling import SAMPLINGS, Bernoulli, Counted, Exact, Rollout, Sampling

Law = Sampling
LAWS = SAMPLINGS

__all__ = ["LAWS", "Bernoulli", "Counted", "Exact", "Law", "Rollout"]

warnings.warn(
    "score_video.rl.laws is now score_video.rl.sampling, LAWS and Law in it SAMPLINGS and Sampling",
    DeprecationWarning,
    stacklevel=2,
)
