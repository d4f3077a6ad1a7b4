"""Hashes that tell which checkpoint and compressor a compressed video is of, where the model is not at hand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from score_video.compressor import Compressor
from score_video.errors import ScoreError

_SAMPLES, _SAMPLE = 64, 4096  # of a file of weights, and the bytes of one


def compressor_identity(compressor: Compressor) -> str:
    """A hash that changes with what decides, before the vision tower too, how many stay and how they are picked.

    Raises:
        ScoreError: it decides by a rule of the user's own, of which nothing is known.
    """
    return _with_gate(_own_identity(compressor), compressor)


def decider_identity(compressor: Compressor) -> str:
    """:func:`compressor_identity`, whatever the retention: engines have a count of their own.

    That of what chooses before the vision tower counts, which engines leave to it.
    """
    return _with_gate(_own_identity(replace(compressor, retention=0.1, before_tower=None, halo=0)), compressor)


def _own_identity(compressor: Compressor) -> str:
    """Without what chooses before the tower."""
    if (identity := compressor.identity()) is None:
        raise ScoreError(
            "compressor must be a policy or a rule that comes with score, got "
            f"{type(compressor.method).__name__}: files of a rule of your own could not be told from those of another"
        )
    return identity


def _with_gate(identity: str, compressor: Compressor) -> str:
    if (gate := compressor.gate) is None:
        return identity
    return hashlib.sha256(json.dumps([identity, gate.identity()], sort_keys=True).encode()).hexdigest()


@cache
def checkpoint_identity(source: str) -> str:
    """A hash that changes with a checkpoint's configuration and weights, from samples of its files.

    Args:
        source: its folder, or its id on the hub if it has been downloaded.

    Raises:
        OSError: it is not here.
    """
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source, local_files_only=True))
    config = json.loads((folder / "config.json").read_bytes())
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as weights:
            for number in range(_SAMPLES):
                weights.seek((size - _SAMPLE) * number // (_SAMPLES - 1) if size > _SAMPLE else 0)
                digest.update(weights.read(_SAMPLE))
    return digest.hexdigest()
