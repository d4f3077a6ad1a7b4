"""``python -m bench.partial_tower``: measures, and prints a table."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bench.partial_tower import mllm, vit
from bench.partial_tower.rows import Row, whole_of
from score_video.command_line import run_module
from score_video.commands.ask import DTYPES, find_device
from score_video.commands.terminal import console, progress_bar
from score_video.errors import ScoreError
from score_video.files import write_json
from score_video.mllm.load import load_model, load_processor
from score_video.provenance import versions
from score_video.rl.data import load_examples


def numbers_of(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def report_of(rows: Sequence[Row], about: dict[str, Any]) -> dict[str, Any]:
    """What ``--json`` writes."""
    machine = {"device": about.pop("device"), "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    found = [row.numbers(whole_of(rows, row)) for row in rows]
    return {**about, "rows": found, **machine, "versions": versions("torch", "transformers")}


def print_table(report: dict[str, Any], to: Console) -> None:
    heading = f"{report['model']}, {report['method']} before the tower, {report['rows'][0]['videos']} videos"
    to.print(heading, markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    asked = "questions" in report["rows"][0]
    for name in ("kept", "the tower sees", "patches", "ms", "speed-up", "cosine", *(["accuracy", "to whole"] * asked)):
        table.add_column(name, justify="left" if name == "the tower sees" else "right", no_wrap=True)
    for row in report["rows"]:
        cells = [f"{row['kept']:.0%}", row["how"], f"{row['encoded']:.0%}", f"{row['milliseconds']:.0f}"]
        cells += [f"{row['speed_up']:.1f}x", f"{row['cosine']:.3f}"]
        if asked:
            error = row["difference_error"]
            cells += [f"{100 * row['accuracy']:.1f}", f"{100 * row['difference']:+.1f}"]
            cells[-1] += "" if error is None else f" ± {100 * error:.1f}"
        table.add_row(*cells)
    to.print(table)


def main(
    model: Annotated[str, typer.Option(help="A video MLLM, or DINOv2: a folder, or its id on the hub.")],
    data: Annotated[str | None, typer.Option(help="Questions, any file that score train reads.")] = None,
    video: Annotated[list[Path] | None, typer.Option(help="Or videos alone; repeat it.")] = None,
    videos: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    kept: Annotated[str, typer.Option(help="Shares of the tokens kept before the tower.")] = "0.5,0.3,0.2,0.1",
    halos: Annotated[str, typer.Option(help="Rings of neighbours that the tower sees besides.")] = "0,1",
    method: Annotated[str, typer.Option(help="The rule before the tower.")] = "evs-dithered",
    frames: Annotated[int, typer.Option(help="Sampled of each video.", min=1)] = 16,
    size: Annotated[int, typer.Option(help="DINOv2: side of its frames in pixels.", min=1)] = 252,
    device: Annotated[str | None, typer.Option(help="[default: a GPU if there is one]")] = None,
    dtype: Annotated[str, typer.Option(help="Of the model; auto: as it was saved.")] = "auto",
    out: Annotated[Path | None, typer.Option("--json", help="Write the numbers here too.")] = None,
) -> None:
    """What a vision tower loses that sees a part of a video's tokens, beside the whole tower at the same places."""
    if (data is None) == (not video):
        raise ScoreError("give --data or --video")
    shares, rings = numbers_of(kept), [int(number) for number in numbers_of(halos)]
    is_vit = Path(model).is_dir() and json.loads((Path(model) / "config.json").read_text())["model_type"] == "dinov2"
    with progress_bar() as progress:
        if is_vit:
            if not video:
                raise ScoreError("--data is for a video MLLM: DINOv2 answers no questions")
            tower = vit.tower_of(model, size)
            rows = vit.measure(tower, video[:videos], method, shares, rings, frames, progress)
            where = str(tower.device)
        else:
            examples: list[Any] = [{"video": str(path), "id": path.name, "questions": []} for path in video or []]
            if data is not None:
                loaded = load_examples(data)
                examples = [loaded[number] for number in range(min(videos, len(loaded)))]
            loaded_model = load_model(model, find_device(device), DTYPES[dtype])
            rows = mllm.measure(
                loaded_model, load_processor(model), examples[:videos], method, shares, rings, frames, progress
            )
            where = str(loaded_model.device)
    report = report_of(rows, {"model": model, "method": method, "frames": frames, "device": where})
    if out is not None:
        write_json(out, report)
    print_table(report, console())


if __name__ == "__main__":
    run_module(main)
