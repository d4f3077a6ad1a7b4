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

from score_video.app.as_python import is_saved, python_code
from score_video.app.encoded import FIRST_QUESTION, Encoded
from score_video.commands.options import PRETRAINED_NAME, Chosen
from score_video.commands.seen import before_tower_report
from score_video.drawing.overlay import Compressed, compressed, contact_sheet, write_overlay
from score_video.errors import ScoreError
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
    gate = source.gate.options if source.gate is not None else []
    common = ["--retention", f"{retention:g}", *gate, "--frames", str(cut.frames), "--size", str(cut.size)]
    if source.kind == "model":
        asks = ["score", "ask", name, FIRST_QUESTION, "--model", source.name]
        return "".join(f"{shlex.join([*asks, *_options(one), *common])}\n" for one in chosen)
    common += ["--patch", str(cut.patch)] if source.kind == "pixels" else ["--tower", source.name]
    if len(chosen) > 1 and not any(is_saved(one) for one in chosen):
        options = [word for one in chosen for word in (_options(one) or ["--method", "pretrained"])]
        return f"{shlex.join(['score', 'compress', name, *options, *common])}\n"
    outs: list[list[str]] = [[]] if len(chosen) == 1 else [["--out", f"kept-{n}"] for n in range(1, len(chosen) + 1)]
    lines = (["score", "compress", name, *_options(one), *common, *out] for one, out in zip(chosen, outs, strict=True))
    return "".join(f"{shlex.join(line)}\n" for line in lines)


def _options(chosen: Chosen) -> list[str]:
    if chosen.name == PRETRAINED_NAME:
        return []
    return ["--policy" if is_saved(chosen) else "--method", chosen.name]


def _pictured(encoded: Encoded, chosen: Sequence[Chosen], retention: float) -> tuple[Compressed, str]:
    kept = [(one.name, encoded.chooser(one).at(retention).index) for one in chosen]
    sampled = encoded.sampled
    (how, index), *others = kept
    seen = None if encoded.seen is None else encoded.seen.encoded.cpu()
    return compressed(how, sampled.frames, sampled.timestamps, encoded.videos.to("cpu"), index, others, seen)


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
    before_tower = None
    if source.gate is not None:
        report = before_tower_report(source.gate.compressor, encoded.seen)
        before_tower = report and {**report, "method": source.gate.chosen.name}
    surprise = [[None if s == float("inf") else round(float(s), 6) for s in row] for row in _by_frame(encoded)]
    return {
        "video": encoded.name,
        "source": asdict(encoded.sampled.source),
        "tokens_from": {"kind": source.kind, "name": source.name},
        "before_tower": before_tower,
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
