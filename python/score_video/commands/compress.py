"""The main job on a real video: sample, cut into patch tokens, compress, and show what was kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

import score_ext
from score_video.compressor import Compressor
from score_video.drawing.kept import PICTURES, write_pictures
from score_video.files import output_folder
from score_video.packed import PackedVideos
from score_video.progress import Phases, Progress
from score_video.provenance import versions
from score_video.video import SampledVideo, read_frames
from score_video.video.patches import MEAN, STD, fit_to_patches, to_patches

FILES = ("summary.json", "tokens.safetensors", *PICTURES)
DEFAULT_FRAMES = 32


def compress_video(
    video: Path,
    out: Path,
    compressor: Compressor,
    *,
    name: str,
    num_frames: int | None = None,
    fps: float | None = None,
    patch: int = 28,
    size: int = 448,
    allow_truncated: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compresses the patch tokens of a video file and writes ``FILES`` into a new folder.

    - ``summary.json``: what is returned.
    - ``tokens.safetensors``: tokens float32 [K, 3 * patch * patch], index int64 [K] (ascending rows of the T * gh * gw
      tokens in (t, y, x) order), grid int64 [3] (T, gh, gw), timestamps float64 [T] in seconds.
    - ``contact.png``, ``overlay.mp4``: see :mod:`score_video.drawing.overlay`.

    Args:
        video: any file that :func:`score_video.video.read_frames` takes.
        out: folder to make; see :func:`score_video.files.output_folder`.
        compressor: what decides. A policy of state "residual" must be for tokens of width 3 * patch * patch.
        name: what to call that in the summary and on the pictures.
        num_frames, fps: how to sample; 32 frames if neither is given.
        patch: side of a patch in pixels.
        size: longest side to which frames are scaled, in pixels.
        allow_truncated: read what there is of a file that ends early; see :func:`score_video.video.read_frames`.
        overwrite: replace an earlier result.
        progress: told how far things are.

    Raises:
        ValueError: an impossible option; :class:`score_video.video.VideoError`, which is one, for an unusable file.
        OSError: the output cannot be written. In both cases nothing is left behind.
    """
    fit_to_patches(1, 1, patch=patch, size=size)  # refuses what cannot work before any time is spent on the video
    if num_frames is None and fps is None:
        num_frames = DEFAULT_FRAMES
    phases = Phases(progress)
    with output_folder(out, FILES, overwrite=overwrite) as folder:
        with phases("decode") as report:
            fit = partial(fit_to_patches, patch=patch, size=size)
            sampled = read_frames(
                video, fit, num_frames=num_frames, fps=fps, allow_truncated=allow_truncated, progress=report
            )
        with phases("patch"):
            tokens, grid = to_patches(sampled.frames, patch)
        with phases("compress"):
            videos = PackedVideos.from_frames([tokens.view(*grid, -1)])
            index = compressor.select(videos).index
            kept = score_ext.gather(tokens, index)
        with phases("pictures"):
            write_pictures(folder, video.name, name, sampled.frames, sampled.timestamps, videos, index)
        with phases("write"):
            _write_tokens(folder / "tokens.safetensors", kept, index, grid, sampled)
        summary = {
            "video": str(video),
            "source": asdict(sampled.source),
            "method": name,
            "selection": compressor.selection_used,
            "seed": compressor.seed,
            "retention": {"asked": compressor.plain_retention, "got": len(index) / len(tokens)},
            "frames": {
                "asked": {"frames": num_frames, "fps": fps},
                "sampled": grid[0],
                "fewer_because": sampled.why_fewer(num_frames),
                "height": sampled.frames.shape[1],
                "width": sampled.frames.shape[2],
                "decoded": sampled.decoded,
                "damaged_packets": sampled.damaged,
                "timestamps": [round(float(t), 6) for t in sampled.timestamps],
            },
            "patch": patch,
            "grid": list(grid),
            "tokens": len(tokens),
            "kept": len(index),
            "kept_per_frame": torch.bincount(index // (grid[1] * grid[2]), minlength=grid[0]).tolist(),
            "seconds": round(sum(phases.milliseconds.values()) / 1000, 3),
            "milliseconds": {phase: round(value, 2) for phase, value in phases.milliseconds.items()},
            "versions": versions("torch", "av"),
        }
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _write_tokens(path: Path, kept: Tensor, index: Tensor, grid: tuple[int, int, int], sampled: SampledVideo) -> None:
    tensors = {
        "tokens": kept,
        "index": index,
        "grid": torch.tensor(grid, dtype=torch.int64, device="cpu"),
        "timestamps": torch.from_numpy(sampled.timestamps),
    }
    metadata = {"score": score_ext.__version__, "layout": "t, y, x", "mean": str(MEAN), "std": str(STD)}
    path.write_bytes(save(tensors, metadata))  # not save_file: its errors are no OSError, its files for the owner only
