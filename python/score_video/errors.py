"""Errors that are the user's to mend, told from those that are ours.

The command line makes one line of the former and ends with status 2; anything else that is raised is a bug of ours, and
keeps its traceback. Both are exceptions of Python's own kinds, so that a library's users catch what they would expect.
"""

from __future__ import annotations


class ScoreError(ValueError):
    """Something that was given cannot be used: an argument, an option, a file. One line that names it and says why."""


class ScoreWarning(UserWarning):
    """What users ought to know and may have meant; commands show it in one line."""
