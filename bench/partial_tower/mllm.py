"""The vision tower of a video MLLM, and what the model answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.partial_tower.rows import WHOLE, Row, clock, how_named, similarity
from score_video.before_tower import Gate
from score_video.compressor import Compressor
from score_video.mllm.adapter import find_adapter
from score_video.mllm.compress import EncodedInputs, encode_inputs
from score_video.mllm.conversation import chat_text, model_inputs, read_clip
from score_video.mllm.environment import MllmEnvironment
from score_video.mllm.environment.environment import MAX_PIXELS
from score_video.progress import Progress
from score_video.rl.environment import EncodedBatch, Selection


@torch.no_grad()
def measure(
    model: Any,
    processor: Any,
    examples: Sequence[Mapping[str, Any]],
    method: str,
    shares: Sequence[float],
    halos: Sequence[int],
    frames: int,
    progress: Progress,
) -> list[Row]:
    """A row for all tokens, then for each share the whole tower and each halo.

    Args:
        model, processor: as transformers loads them.
        examples: each with a ``video``, a path; and ``questions``, which may be none.
        method: of the gate.
        shares: that it keeps.
        halos: rings of neighbours, 0 among them for none.
        frames: sampled of each video.
        progress: told how far things are.
    """
    rows = [Row(1.0, WHOLE)]
    rows += [Row(share, how) for share in shares for how in (WHOLE, *map(how_named, halos))]
    named = {(row.kept, row.how): row for row in rows}
    world = MllmEnvironment(model, processor, num_frames=frames)
    for number, example in enumerate(examples):
        inputs = _inputs(model, processor, example, frames)
        _encode(model, inputs, frames, None)  # warms up what shapes are for
        whole, seconds = _encode(model, inputs, frames, None)
        tokens = whole.visuals.videos.tokens
        batch = world.encode([example]) if example["questions"] else None
        everything = torch.arange(len(tokens), device=tokens.device)
        _add(named[1.0, WHOLE], 1.0, seconds, 1.0)
        _answer(named[1.0, WHOLE], world, batch, everything)
        for share in shares:
            for halo in halos:
                gate = Gate(Compressor(method, share), halo, method)
                partial, took = _encode(model, inputs, frames, gate)
                seen = partial.visuals.seen
                assert seen is not None
                kept = seen.kept.index
                if halo == halos[0]:
                    _add(named[share, WHOLE], 1.0, seconds, 1.0)
                    _answer(named[share, WHOLE], world, batch, kept)
                row = named[share, how_named(halo)]
                cosine = similarity(partial.visuals.videos.tokens[kept], tokens[kept])
                _add(row, len(seen.encoded) / len(tokens), took, cosine)
                if batch is not None:
                    behind = world.behind(gate)
                    _answer(row, behind, behind.encode([example]), kept)
        progress("videos", number + 1, len(examples))
    return rows


def _inputs(model: Any, processor: Any, example: Mapping[str, Any], frames: int) -> dict[str, Any]:
    clip = read_clip(example["video"], frames, MAX_PIXELS)
    return model_inputs(model, processor, clip, chat_text(processor, "What happens?"))


def _encode(model: Any, inputs: dict[str, Any], frames: int, gate: Gate | None) -> tuple[EncodedInputs, float]:
    """What the vision side makes of the inputs, and the seconds that it took; the gate's own work in them."""
    layout = find_adapter(model).layout_of(frames)
    start = clock(model.device)
    encoded = encode_inputs(model, inputs, visual_layout=layout, gate=gate)
    assert encoded is not None
    return encoded, clock(model.device) - start


def _add(row: Row, encoded: float, seconds: float, cosine: float) -> None:
    row.encoded.append(encoded)
    row.seconds.append(seconds)
    row.cosine.append(cosine)


def _answer(row: Row, world: MllmEnvironment, batch: EncodedBatch | None, kept: torch.Tensor) -> None:
    """Adds what the model answers from the kept tokens alone; nothing where there is no question."""
    if batch is None:
        return
    keep = torch.tensor([[len(kept)]], dtype=torch.int32, device=kept.device)
    outcome, count = world.answer(batch, Selection(kept, keep)), len(batch.payload.questions[0])
    row.asked.append(count)
    row.right.append(float(outcome.correct[0, 0]) * count)
    row.log_prob.append(float(outcome.log_prob[0, 0]) * count)
