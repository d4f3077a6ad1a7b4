"""lmms-eval with compression: what ``lmms-eval --model score`` runs. Found by an entry point; lmms-eval imports it."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval registers: the chat model ``score``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("score", chat_class_path="score_video.evaluation_harness.chat.Score")
