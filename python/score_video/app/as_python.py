"""Python that does what the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from score_video.app.encoded import FIRST_QUESTION, Encoded
from score_video.commands.options import PRETRAINED_NAME, Chosen
from score_video.methods import METHODS

if TYPE_CHECKING:
    from score_video.app.studio import Source

_PIXELS = """from functools import partial

from score_video import Compressor, PackedVideos, read_frames
{own}from score_video.video.patches import fit_to_patches, to_patches

fit = partial(fit_to_patches, patch={patch}, size={size})
video = read_frames({video!r}, fit, num_frames={frames})
tokens, grid = to_patches(video.frames, {patch})
videos = PackedVideos.from_frames([tokens.view(*grid, -1)])
{compressors}for name, compressor in compressors.items():
    print(name, compressor.select(videos).index.tolist())
"""

_TOWER = """from functools import partial

from score_video import Compressor, read_frames
{own}from score_video.video.patches import fit_to_patches
from score_video.video.tower import load_tower

fit = partial(fit_to_patches, patch={patch}, size={size})
video = read_frames({video!r}, fit, num_frames={frames})
videos = load_tower({source!r}).encode(video.frames)
{compressors}for name, compressor in compressors.items():
    print(name, compressor.select(videos).index.tolist())
"""

_TOWER_BEHIND_GATE = """from functools import partial

from score_video import Compressor, read_frames
{own}from score_video.video.partial_tower import encode_video
from score_video.video.patches import fit_to_patches
from score_video.video.tower import load_tower

fit = partial(fit_to_patches, patch={patch}, size={size})
video = read_frames({video!r}, fit, num_frames={frames})
{compressors}gate = next(iter(compressors.values())).gate
videos, seen = encode_video(load_tower({source!r}), video.frames, gate)
for name, compressor in compressors.items():
    print(name, compressor.select_seen(videos, seen).index.tolist())
"""

_MODEL = """from transformers import AutoModelForImageTextToText, AutoProcessor

from score_video import Compressor, encode_inputs, read_frames
{own}from score_video.mllm.adapter import find_adapter
from score_video.mllm.conversation import chat_text, clip_of_video, model_inputs


def fit(height, width):
    scale = min(1, {size} / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


model = AutoModelForImageTextToText.from_pretrained({source!r}, dtype="auto")
processor = AutoProcessor.from_pretrained({source!r})
video = read_frames({video!r}, fit, num_frames={frames})
inputs = model_inputs(model, processor, clip_of_video(video), chat_text(processor, {question!r}))
{compressors}gate = next(iter(compressors.values())).gate  # what they have before the vision tower, or None
encoded = encode_inputs(model, inputs, visual_layout=find_adapter(model).layout_of(len(video.frames)), gate=gate)
for name, compressor in compressors.items():
    selected = encoded.select(compressor)
    print(name, selected.index.tolist())
    shorter = encoded.compress(selected)
    answer = model.generate(**shorter, max_new_tokens=64, do_sample=False)
    print(processor.tokenizer.decode(answer[0, shorter.prompt_length :], skip_special_tokens=True))
"""


def python_code(encoded: Encoded, chosen: Sequence[Chosen], retention: float, source: Source) -> str:
    """Prints which rows each compressor keeps."""
    templates = {"pixels": _PIXELS, "tower": _TOWER if source.gate is None else _TOWER_BEHIND_GATE, "model": _MODEL}
    named, before, behind = list(chosen), "", ""
    if source.gate is not None:
        named.append(source.gate.chosen)
        before = f"before_tower = {_made(source.gate.chosen, source.gate.retention)}\n"
        behind = f", before_tower=before_tower, halo={source.gate.halo}"
    each = "".join(f"    {one.name!r}: {_made(one, retention, behind)},\n" for one in chosen)
    own = any(map(_is_own_rule, named))
    return templates[source.kind].format(
        own="from score_video.commands.options import compressor_of_options\n" if own else "",
        compressors=f"{before}compressors = {{\n{each}}}\n",
        video=encoded.name,
        source=source.name,
        question=FIRST_QUESTION,
        **asdict(encoded.cut),
    )


def is_saved(chosen: Chosen) -> bool:
    """Whether it is a policy or compressor of a folder or an id."""
    return chosen.name != PRETRAINED_NAME and chosen.name not in METHODS and not _is_own_rule(chosen)


def _made(chosen: Chosen, retention: float, behind: str = "") -> str:
    """behind: further arguments."""
    if _is_own_rule(chosen):
        return f"compressor_of_options(None, {chosen.name!r}, retention={retention!r}{behind})"
    name = "pretrained" if chosen.name == PRETRAINED_NAME else chosen.name
    return f"Compressor.from_pretrained({name!r}, retention={retention!r}{behind})"


def _is_own_rule(chosen: Chosen) -> bool:
    return ":" in chosen.name
