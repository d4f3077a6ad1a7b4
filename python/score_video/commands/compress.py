"""The main job on a real video: sample, cut into patch tokens, compress, and show what was kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

import score_ext
from score_video.commands.frames import Frames
from score_video.commands.options import Chosen
from score_video.commands.seen import before_tower_report
from score_video.compressor import Compressor
from score_video.drawing.overlay import PICTURES, scale_to_grid, write_pictures
from score_video.errors import ScoreError
from score_video.files import output_folder
from score_video.packed import PackedVideos
from score_video.progress import Phases
from score_video.provenance import versions
from score_video.video import SampledVideo
from score_video.video.partial_tower import check_partial, encode_video
from score_video.video.patches import MEAN, STD, fit_to_patches, to_patches
from score_video.video.tower import load_tower

FILES = ("summary.json", "tokens.safetensors", *PICTURES)


@dataclass(frozen=True)
class CompressOptions:
    """How a video is cut into tokens.

    Attributes:
        frames: which frames of the video are read.
        patch: side of a patch in pixels.
        size: longest side to which frames are scaled, in pixels.
        overwrite: whether an earlier result is replaced.
        tower: a vision model whose tokens are compressed, as for :func:`score_video.video.tower.load_tower`; None:
            patches of pixels. It cuts its patches itself.
    """

    frames: Frames = field(default_factory=Frames)
    patch: int = 28
    size: int = 448
    overwrite: bool = False
    tower: str | None = None


def compress_video(
    video: Path,
    out: Path,
    chosen: Chosen,
    options: CompressOptions | None = None,
    phases: Phases | None = None,
    others: Sequence[Chosen] = (),
) -> dict[str, Any]:
    """Compresses the tokens of a video file (patches of its pixels, or a tower's); writes ``FILES`` into a new folder.

    - ``summary.json``: what is returned.
    - ``tokens.safetensors``: tokens float32 [K, 3 * patch * patch], or [K, D] in the tower's dtype; index int64 [K]
      (ascending rows of the T * gh * gw tokens in (t, y, x) order), grid int64 [3] (T, gh, gw), timestamps float64 [T]
      in seconds; and ``compared.1.index``, ``compared.2.index`` of the others.
    - ``contact.png``, ``overlay.mp4``: see :mod:`score_video.drawing.overlay`.

    Args:
        video: any file that :func:`score_video.video.read_frames` takes.
        out: folder to make; see :func:`score_video.files.output_folder`.
        chosen: what decides. A policy of state "residual" must be for tokens of width 3 * patch * patch. With a
            ``before_tower`` the tower, a DINOv2, runs on what that lets through.
        options: how the video is cut into tokens; None: the defaults.
        phases: what measures, and tells how far things are; phases that are over stand in the summary too.
        others: at most two, which are compared with it: drawn beside it, counted in the summary. Behind the same
            ``before_tower`` and ``halo``.

    Raises:
        ValueError: an impossible option; :class:`score_video.video.VideoError`, which is one, for an unusable file.
        OSError: the output cannot be written. In both cases nothing is left behind.
    """
    options = options or CompressOptions()
    frames, compressor = options.frames, chosen.compressor
    patch = options.patch if options.tower is None else 1
    fit = partial(fit_to_patches, patch=patch, size=options.size)
    fit(1, 1)  # refuses what cannot work before any time is spent on the video
    _check_gates(compressor, others, options.tower)
    phases, seen = phases or Phases(), None
    with output_folder(out, FILES, overwrite=options.overwrite) as folder:
        if options.tower is not None:
            with phases("load tower"):
                tower = load_tower(options.tower)
                if compressor.gate is not None:
                    check_partial(tower)
        with phases("decode") as report:
            sampled = frames.read(video, fit, report)
        if options.tower is None:
            with phases("patch"):
                tokens, grid = to_patches(sampled.frames, patch)
                videos, drawn = PackedVideos.from_frames([tokens.view(*grid, -1)]), sampled.frames
        else:
            videos, seen = encode_video(tower, sampled.frames, compressor.gate, phases)
            grid = videos.grid
            drawn = scale_to_grid(sampled.frames, *grid[1:])
        with phases("compress"):
            index = compressor.select_seen(videos, seen).index
            kept = score_ext.gather(videos.tokens, index).cpu()
            index = index.cpu()
        compared = [(other.name, other.compressor.select_seen(videos, seen).index.cpu()) for other in others]
        with phases("pictures"):
            write_pictures(
                folder,
                video.name,
                chosen.name,
                drawn,
                sampled.timestamps,
                videos.to("cpu"),
                index,
                compared,
                None if seen is None else seen.encoded.cpu(),
            )
        with phases("write"):
            rows = {f"compared.{number}.index": rows for number, (_, rows) in enumerate(compared, start=1)}
            _write_tokens(folder / "tokens.safetensors", kept, index, grid, sampled, rows, options.tower)
        summary = {
            "video": str(video),
            "source": asdict(sampled.source),
            "method": chosen.name,
            "selection": compressor.selection_used,
            "seed": compressor.seed,
            "tower": options.tower,
            "before_tower": before_tower_report(compressor, seen),
            "retention": {"asked": compressor.plain_retention, "got": len(index) / len(videos.tokens)},
            "frames": {
                "asked": {"frames": frames.number, "fps": frames.fps},
                "sampled": grid[0],
                "fewer_because": sampled.why_fewer(frames.number),
                "height": sampled.frames.shape[1],
                "width": sampled.frames.shape[2],
                "decoded": sampled.decoded,
                "damaged_packets": sampled.damaged,
                "timestamps": [round(float(t), 6) for t in sampled.timestamps],
            },
            "patch": patch if options.tower is None else tower.patch,
            "grid": list(grid),
            "tokens": len(videos.tokens),
            "kept": len(index),
            "kept_per_frame": _per_frame(index, grid),
            "compared": [
                {
                    "method": other.name,
                    "selection": other.compressor.selection_used,
                    "seed": other.compressor.seed,
                    "kept": len(rows),
                    "kept_per_frame": _per_frame(rows, grid),
                    "kept_by_both": int(torch.isin(rows, index).sum()),
                }
                for other, (_, rows) in zip(others, compared, strict=True)
            ],
            "seconds": round(sum(phases.milliseconds.values()) / 1000, 3),
            "milliseconds": {phase: round(value, 2) for phase, value in phases.milliseconds.items()},
            "versions": versions("torch", "av"),
        }
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _check_gates(compressor: Compressor, others: Sequence[Chosen], tower: str | None) -> None:
    """Raises ScoreError for a choice before a tower that there is not, or for several of them."""
    if compressor.before_tower is not None and tower is None:
        raise ScoreError(
            "before_tower needs a tower (--tower): without one tokens are patches of pixels, which cost nothing that "
            "could be saved"
        )
    for other in others:
        if (other.compressor.before_tower, other.compressor.halo) != (compressor.before_tower, compressor.halo):
            raise ScoreError(f"others must have the before_tower and the halo of the first, {other.name} does not")


def _per_frame(index: Tensor, grid: tuple[int, int, int]) -> list[int]:
    """How many rows of each frame."""
    counts: list[int] = torch.bincount(index // (grid[1] * grid[2]), minlength=grid[0]).tolist()
    return counts


def _write_tokens(
    path: Path,
    kept: Tensor,
    index: Tensor,
    grid: tuple[int, int, int],
    sampled: SampledVideo,
    compared: Mapping[str, Tensor],
    tower: str | None,
) -> None:
    tensors = {
        "tokens": kept,
        "index": index,
        "grid": torch.tensor(grid, dtype=torch.int64, device="cpu"),
        "timestamps": torch.from_numpy(sampled.timestamps),
        **compared,
    }
    metadata = {"score": score_ext.__version__, "layout": "t, y, x"}
    metadata |= {"mean": str(MEAN), "std": str(STD)} if tower is None else {"tower": tower}
    path.write_bytes(save(tensors, metadata))  # not save_file: its errors are no OSError, its files for the owner only
