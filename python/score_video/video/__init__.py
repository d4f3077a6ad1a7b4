"""Reading video files: frames by time, of any local file, in bounded memory."""

from score_video.video.container import VideoError
from score_video.video.sampling import SampledVideo, SourceFacts, read_frames

__all__ = ["SampledVideo", "SourceFacts", "VideoError", "read_frames"]
