"""What the page lets one take along: the picture, the overlay, the numbers, and the command line and Python that do the
same."""

from __future__ import annotations

import io
import json
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_video.app.encoded import FIRST_QUESTION, Encoded
from score_video.commands.options import PRETRAINED_NAME, Chosen
from score_video.drawing.overlay import Compressed, compressed, contact_sheet, write_overlay
from score_video.errors import ScoreError
from score_video.methods import METHODS
from score_video.provenance import versions

if TYPE_CHECKING:
    from score_video.app.studio import Source


@dataclass(frozen=True)
class ExportedFile:
    """A file to save."""

    name: str
    media_type: str
    content: bytes


def export(kind: str, encoded: Encoded, chosen: Sequence[Chosen], retention: float, source: Source) -> ExportedFile:
    """One of "picture", "overlay", "numbers", "command" and "python".

    Args:
        chosen: what is compared, one to three.

    Raises:
        ScoreError: there is no such kind.
    """
    if kind == "picture":
        pictured, facts = _pictured(encoded, chosen, retention)
        buffer = io.BytesIO()
        contact_sheet(pictured, encoded.name, facts).save(buffer, "PNG", compress_level=2)
        return ExportedFile("kept.png", "image/png", buffer.getvalue())
    if kind == "overlay":
        with tempfile.TemporaryDirectory(prefix="score-overlay-") as folder:
            path = Path(folder) / "overlay.mp4"
            write_overlay(path, _pictured(encoded, chosen, retention)[0])
            return ExportedFile("overlay.mp4", "video/mp4", path.read_bytes())
    if kind == "numbers":
        text = json.dumps(_numbers(encoded, chosen, retention, source), indent=2, allow_nan=False) + "\n"
        return ExportedFile("kept.json", "application/json", text.encode())
    if kind == "command":
        return ExportedFile("kept.sh", "text/plain", command_line(encoded, chosen, retention, source).encode())
    if kind == "python":
        return ExportedFile("kept.py", "text/plain", python_code(encoded, chosen, retention, source).encode())
    raise ScoreError(f"kind must be picture, overlay, numbers, command or python, got {kind!r:.40}")


def command_line(encoded: Encoded, chosen: Sequence[Chosen], retention: float, source: Source) -> str:
    """What does the same in a terminal: one line, or one for each compressor where one command cannot compare them."""
    cut = encoded.cut
    chosen = list({one.name: one for one in chosen}.values())  # the page may show one twice
    # a name that begins with "-" is no option
    name = f"./{encoded.name}" if encoded.name.startswith("-") else encoded.name
    common = ["--retention", f"{retention:g}", "--frames", str(cut.frames), "--size", str(cut.size)]
    if source.kind == "model":
        asks = ["score", "ask", name, FIRST_QUESTION, "--model", source.name]
        return "".join(f"{shlex.join([*asks, *_options(one), *common])}\n" for one in chosen)
    common += ["--patch", str(cut.patch)] if source.kind == "pixels" else ["--tower", source.name]
    if len(chosen) > 1 and not any(_is_saved(one) for one in chosen):
        options = [word for one in chosen for word in (_options(one) or ["--method", "pretrained"])]
        return f"{shlex.join(['score', 'compress', name, *options, *common])}\n"
    outs: list[list[str]] = [[]] if len(chosen) == 1 else [["--out", f"kept-{n}"] for n in range(1, len(chosen) + 1)]
    lines = (["score", "compress", name, *_options(one), *common, *out] for one, out in zip(chosen, outs, strict=True))
    return "".join(f"{shlex.join(line)}\n" for line in lines)


def python_code(encoded: Encoded, chosen: Sequence[Chosen], retention: float, source: Source) -> str:
    """What does the same in Python; prints which rows each compressor keeps."""
    cut = encoded.cut
    own = "from score_video.commands.options import compressor_of_options\n" if any(map(_is_own_rule, chosen)) else ""
    compressors = "".join(f"    {one.name!r}: {_made(one, retention)},\n" for one in chosen)
    if source.kind == "model":
        return _MODEL_CODE.format(
            own=own,
            compressors=compressors,
            video=encoded.name,
            model=source.name,
            question=FIRST_QUESTION,
            **asdict(cut),
        )
    fit = f"""fit = partial(fit_to_patches, patch={cut.patch}, size={cut.size})
video = read_frames({encoded.name!r}, fit, num_frames={cut.frames})
"""
    if source.kind == "tower":
        lines = f"""from score_video import Compressor, read_frames
{own}from score_video.video.patches import fit_to_patches
from score_video.video.tower import load_tower

{fit}videos = load_tower({source.name!r}).encode(video.frames)
"""
    else:
        lines = f"""from score_video import Compressor, PackedVideos, read_frames
{own}from score_video.video.patches import fit_to_patches, to_patches

{fit}tokens, grid = to_patches(video.frames, {cut.patch})
videos = PackedVideos.from_frames([tokens.view(*grid, -1)])
"""
    return f"""from functools import partial

{lines}compressors = {{
{compressors}}}
for name, compressor in compressors.items():
    print(name, compressor.select(videos).index.tolist())
"""


_MODEL_CODE = """from transformers import AutoModelForImageTextToText, AutoProcessor

from score_video import Compressor, encode_inputs, read_frames
{own}from score_video.mllm.adapter import find_adapter
from score_video.mllm.conversation import chat_text, clip_of_video, model_inputs


def fit(height, width):
    scale = min(1, {size} / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


model = AutoModelForImageTextToText.from_pretrained({model!r}, dtype="auto")
processor = AutoProcessor.from_pretrained({model!r})
video = read_frames({video!r}, fit, num_frames={frames})
inputs = model_inputs(model, processor, clip_of_video(video), chat_text(processor, {question!r}))
encoded = encode_inputs(model, inputs, visual_layout=find_adapter(model).layout_of(len(video.frames)))
compressors = {{
{compressors}}}
for name, compressor in compressors.items():
    selected = encoded.select(compressor)
    print(name, selected.index.tolist())
    shorter = encoded.compress(selected)
    answer = model.generate(**shorter, max_new_tokens=64, do_sample=False)
    print(processor.tokenizer.decode(answer[0, shorter.prompt_length :], skip_special_tokens=True))
"""


def _made(chosen: Chosen, retention: float) -> str:
    if _is_own_rule(chosen):
        return f"compressor_of_options(None, {chosen.name!r}, retention={retention!r})"
    name = "pretrained" if chosen.name == PRETRAINED_NAME else chosen.name
    return f"Compressor.from_pretrained({name!r}, retention={retention!r})"


def _is_own_rule(chosen: Chosen) -> bool:
    return ":" in chosen.name


def _is_saved(chosen: Chosen) -> bool:
    """Whether it is a policy or compressor of a folder or an id."""
    return chosen.name != PRETRAINED_NAME and chosen.name not in METHODS and not _is_own_rule(chosen)


def _options(chosen: Chosen) -> list[str]:
    if chosen.name == PRETRAINED_NAME:
        return []
    return ["--policy" if _is_saved(chosen) else "--method", chosen.name]


def _pictured(encoded: Encoded, chosen: Sequence[Chosen], retention: float) -> tuple[Compressed, str]:
    kept = [(one.name, encoded.chooser(one).at(retention).index) for one in chosen]
    sampled = encoded.sampled
    (how, index), *others = kept
    return compressed(how, sampled.frames, sampled.timestamps, encoded.videos.to("cpu"), index, others)


def _numbers(encoded: Encoded, chosen: Sequence[Chosen], retention: float, source: Source) -> dict[str, Any]:
    frames, rows, columns = encoded.grid
    compressors = []
    for one in chosen:
        choice = encoded.chooser(one).at(retention)
        per_frame = (choice.index // (rows * columns)).bincount(minlength=frames).tolist()
        compressors.append(
            {
                "name": one.name,
                "selection": one.compressor.selection_used,
                "seed": one.compressor.seed,
                "kept": len(choice.index),
                "kept_per_frame": per_frame,
                "index": choice.index.tolist(),
                "milliseconds": round(choice.milliseconds, 2),
            }
        )
    surprise = [[None if s == float("inf") else round(float(s), 6) for s in row] for row in _by_frame(encoded)]
    return {
        "video": encoded.name,
        "source": asdict(encoded.sampled.source),
        "tokens_from": {"kind": source.kind, "name": source.name},
        "cut": asdict(encoded.cut),
        "grid": list(encoded.grid),
        "tokens": len(encoded.videos.tokens),
        "timestamps": [round(float(t), 6) for t in encoded.sampled.timestamps],
        "retention": retention,
        "compressors": compressors,
        "surprise": surprise,
        "versions": versions("torch", "av"),
    }


def _by_frame(encoded: Encoded) -> Any:
    return encoded.surprise.reshape(encoded.grid[0], -1)
