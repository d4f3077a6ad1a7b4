"""``python -m bench.first_token``: measures from the file to the first token here, then writes docs/first_token.md."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.first_token.measure import DECODE, Measured, check_same_answer, measure
from bench.first_token.pixels import check_same_pixels, measure_pixels
from bench.first_token.report import write_document
from bench.first_token.results import record_of
from bench.first_token.setting import Setting, make_model, make_processor, setting_of, ways, write_clip
from bench.prefill.results import RESULTS, ROOT, Results, describe_machine, name_of
from score_video.commands.ask import fit
from score_video.commands.frames import Frames
from score_video.errors import ScoreError
from score_video.mllm.conversation import Clip, clip_of_video
from score_video.mllm.torchvision_check import check_torchvision
from score_video.progress import Phases

CHECKED_FRAMES = 4


def main(
    video: Annotated[Path | None, typer.Option(help="Of a file of yours; nothing is kept but a printed table.")] = None,
    report: Annotated[bool, typer.Option(help="Measures nothing: writes the document from the results.")] = False,
    quick: Annotated[bool, typer.Option(help="Everything once and tiny, into a temporary folder.")] = False,
) -> None:
    """Times every phase from a video file to the first new token: transformers alone, and ``score ask``.

    On a CPU of a model a quarter as wide and deep as Qwen2.5-VL 7B, on a GPU of that itself; random weights. Needs
    torchvision, as the processors of transformers do. Results go to bench/results/first-token-NAME.json, of which
    docs/first_token.md is made.
    """
    if report:
        return _write(RESULTS, ROOT / "docs")
    check_torchvision()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = setting_of(device, quick)
    folder = Path(mkdtemp(prefix="first-token-"))
    clip = video
    if clip is None:
        write_clip(clip := folder / "clip.mp4", setting)
    results = Results(describe(setting, device, clip if video else None))
    measure_all(setting, device, clip, results)
    kept = folder if quick or video else None
    results.save((kept or RESULTS) / f"{name_of(device, 'first-token')}.json")
    _write(kept or RESULTS, kept or ROOT / "docs")


def _write(results: Path, docs: Path) -> None:
    found = [Results.load(file) for file in sorted(results.glob("first-token-*.json"))]
    print(f"written: {write_document(found, docs)}")


def describe(setting: Setting, device: torch.device, video: Path | None) -> dict[str, Any]:
    """The machine, and what was asked for."""
    return describe_machine(device) | {
        "geometry": setting.geometry.name,
        "dtype": str(setting.dtype).removeprefix("torch."),
        "size": list(setting.size),
        "seconds": setting.seconds,
        "frames": setting.frames,
        "longer": list(setting.longer),
        "repeats": setting.repeats,
        "video": None if video is None else video.name,
    }


def measure_all(setting: Setting, device: torch.device, file: Path, results: Results) -> None:
    """Adds every record to ``results``. Ways are measured in turn, so that other work on the machine meets them all."""
    processor = make_processor(setting.geometry, setting.tokens_per_frame)
    longer = make_processor(setting.geometry, setting.longer[1])
    model = make_model(setting, processor, device)
    runs: dict[str, list[Measured]] = {way.name: [] for way in ways()}
    decoding, loads = list[float](), list[float]()
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns) as progress:
        task = progress.add_task("check", total=setting.repeats * len(runs) + 2)
        few = decoded(file, CHECKED_FRAMES)[0]
        check_same_answer(model, processor, few)
        check_same_pixels(model, processor, few)
        for _ in range(setting.repeats):
            clip, milliseconds = decoded(file, setting.frames)
            decoding.append(milliseconds)
            for way in ways():
                progress.update(task, description=way.name)
                loads.append(round(os.getloadavg()[0], 2))
                runs[way.name].append(measure(model, processor, clip, way))
                progress.advance(task)
        results.records[DECODE] = {"milliseconds": decoding, "loads": loads}
        results.records |= {name: record_of(found) for name, found in runs.items()}
        for maker, frames in ((processor, setting.frames), (longer, setting.longer[0])):
            progress.update(task, description=f"pixels of {frames} frames")
            clip, milliseconds = decoded(file, frames)
            found = measure_pixels(model, maker, clip, setting.repeats)
            results.records[f"pixels/{frames}"] = {**found, "decode": milliseconds, "frames": frames}
            progress.advance(task)


def decoded(file: Path, frames: int) -> tuple[Clip, float]:
    """What ``score ask --frames`` reads, and the milliseconds that it takes."""
    phases = Phases()
    with phases(DECODE):
        clip = clip_of_video(Frames(number=frames).read(file, fit(None), lambda done, total: None))
    return clip, phases.milliseconds[DECODE]


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ScoreError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
