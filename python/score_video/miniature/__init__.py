"""The miniature: a small procedural world of videos and questions, and a small video MLLM that reads it."""
