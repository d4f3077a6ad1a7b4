"""What tests of questions on the page share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from score_video.app.answers import AnsweringModel
    from score_video.app.studio import Studio

QUESTION = "Which of the two is the longer one, and why?"


def answering(studio: Studio) -> AnsweringModel:
    """The model of a page that has one."""
    assert studio.source.model is not None
    return studio.source.model
