"""Moved to :mod:`score_video.video.synthetic`; this name goes with 0.3."""

from score_video.command_line import run_module
from score_video.renamed import warn
from score_video.video.synthetic import main, render, write_clip

__all__ = ["render", "write_clip"]
warn("score_video.clip is now score_video.video.synthetic", up=1)

if __name__ == "__main__":
    run_module(main)
