"""SCORE on real models and videos: methods, reading video, pictures, the command line. The ops are in score_ext."""
