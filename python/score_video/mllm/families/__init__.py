"""Families of video MLLMs, one file each; ``score_video.mllm.adapter`` says what a family has to say."""
