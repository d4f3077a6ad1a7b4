"""Another name of :mod:`score_video.rl.sampling`, for one release."""

from score_video.renamed import warn
from score_video.rl.sampling import SAMPLINGS, Bernoulli, Counted, Exact, Rollout, Sampling

Law = Sampling
LAWS = SAMPLINGS

__all__ = ["LAWS", "Bernoulli", "Counted", "Exact", "Law", "Rollout"]

warn("score_video.rl.laws is now score_video.rl.sampling, LAWS and Law in it SAMPLINGS and Sampling", up=1)
