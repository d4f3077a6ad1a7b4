"""Moved to :mod:`score_video.video.synthetic`; this name goes with 0.3."""

import warnings

from score_video.video.synthetic import main, render, write_clip

__all__ = ["render", "write_clip"]
warnings.warn("score_video.clip is now score_video.video.synthetic", DeprecationWarning, stacklevel=2)

if __name__ == "__main__":
    main()
