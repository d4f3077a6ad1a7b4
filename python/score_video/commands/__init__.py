"""The subcommands of ``score``, one file each; ``score_video.cli`` parses and calls them."""
