"""``score ask``: a question about a real video, answered by a real MLLM on the tokens that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from score_video.commands.frames import Frames
from score_video.commands.options import Chosen
from score_video.commands.seen import before_tower_report
from score_video.commands.terminal import printable
from score_video.drawing.overlay import PICTURES, scale_to_grid, write_pictures
from score_video.errors import ScoreError
from score_video.files import output_file, output_folder
from score_video.mllm.ask import Answer, Answers, ask, check_policy, seen_frames
from score_video.mllm.conversation import Clip, clip_of_video
from score_video.mllm.load import load_model, load_processor
from score_video.progress import Phases, Progress
from score_video.provenance import versions
from score_video.video import SourceFacts
from score_video.video.patches import fit_to_patches

DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find_device(name: str | None) -> torch.device:
    """The device of that name; None: the machine's accelerator, or else its CPU. Raises ValueError for one not here."""
    here = torch.accelerator.current_accelerator(check_available=True)
    if name is None:
        return here or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ScoreError(f"there is no device {name!r}: cpu, cuda, cuda:1, mps and the like") from None
    count = torch.accelerator.device_count() if here is not None and device.type == here.type else 0
    if device.type != "cpu" and (device.index or 0) >= count:
        raise ScoreError(f"there is no device {name!r} here: this torch sees {here or 'the CPU'}")
    return device


@dataclass(frozen=True)
class AskOptions:
    """How a question is asked.

    Attributes:
        device: the device to run the model on.
        dtype: the model's, a key of ``DTYPES``.
        frames: which frames of the video are read.
        size: longest side that frames are read at, in pixels; None: as they are. The model's processor scales them in
            any case to what the model takes.
        max_new_tokens: the most tokens an answer may have.
        compare: whether the model is to answer on all tokens too.

    Raises:
        ScoreError: a dtype that there is not, or a size below 1.
    """

    device: torch.device
    dtype: str = "auto"
    frames: Frames = field(default_factory=Frames)
    size: int | None = None
    max_new_tokens: int = 64
    compare: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ScoreError(f"there is no dtype {self.dtype!r}; there are {', '.join(DTYPES)}")
        if self.size is not None and self.size < 1:
            raise ScoreError(f"size must be at least 1 pixel, got {self.size}")


@dataclass(frozen=True)
class AskOutputs:
    """What is written beside the answer.

    Attributes:
        pictures: a folder to make for :data:`score_video.drawing.overlay.PICTURES`; None: none.
        json: a file for the report; None: none.
        overwrite: whether such a folder of an earlier question is replaced.
    """

    pictures: Path | None = None
    json: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class AnswerReport:
    """An answer in numbers. Times are in milliseconds, rounded; those of ``milliseconds`` by phase, the last of which
    ends with the first new token. ``tokens_per_second`` is of the tokens after that; None where there is none."""

    answer: str
    visual_tokens: int
    prompt_tokens: int
    new_tokens: int
    milliseconds: dict[str, float]
    milliseconds_to_first_token: float
    tokens_per_second: float | None

    @staticmethod
    def of(answer: Answer) -> AnswerReport:
        """Of an answer of :func:`score_video.mllm.ask.ask`."""
        rate = answer.tokens_per_second
        return AnswerReport(
            answer=answer.text,
            visual_tokens=answer.visual_tokens,
            prompt_tokens=answer.prompt_tokens,
            new_tokens=answer.new_tokens,
            milliseconds={phase: round(time, 2) for phase, time in answer.milliseconds.items()},
            milliseconds_to_first_token=round(answer.time_to_first_token, 2),
            tokens_per_second=None if rate is None else round(rate, 2),
        )


@dataclass(frozen=True)
class AskReport:
    """What ``--json`` writes; docs/ask.md describes it. ``full`` is None unless there is an answer on all tokens,
    ``before_tower`` unless something chose before the vision tower."""

    video: str
    source: SourceFacts
    frames: dict[str, Any]
    question: str
    model: str
    model_type: str
    device: str
    dtype: str
    decides: str
    selection: str | None
    seed: int | None
    retention: dict[str, Any]
    tokens: dict[str, Any]
    compressed: AnswerReport
    full: AnswerReport | None
    milliseconds_to_load: float
    versions: dict[str, str]
    before_tower: dict[str, Any] | None = None


def run(
    video: Path,
    question: str,
    source: str,
    chosen: Chosen,
    options: AskOptions,
    outputs: AskOutputs | None = None,
    progress: Progress | None = None,
) -> AskReport:
    """Loads a model, asks it, and writes what was asked for: all of it or nothing.

    Args:
        video, question: the video file, and the question about it; not empty.
        source: the model's folder or id, as for :func:`score_video.mllm.load.load_model`.
        chosen: decides which tokens the model sees.
        options: how it is asked.
        outputs: what is written; None: nothing.
        progress: told how far things are.

    Raises:
        ValueError, OSError: an unusable model or video, output that cannot be written.
    """
    if not question.strip():
        raise ScoreError("the question must not be empty")
    outputs, compressor = outputs or AskOutputs(), chosen.compressor
    phases = Phases(progress)
    with ExitStack() as stack:
        folder, file = _opened(outputs, stack)
        with phases("load"):
            processor = load_processor(source)
            model = load_model(source, options.device, DTYPES[options.dtype])
            check_policy(model, compressor.method, chosen.name)
        with phases("decode") as step:
            sampled = options.frames.read(video, fit(options.size), step)
        clip = clip_of_video(sampled)
        answers = ask(
            model,
            processor,
            clip,
            question,
            compressor,
            compare=options.compare,
            max_new_tokens=options.max_new_tokens,
            before={"decode": phases.milliseconds["decode"]},
            progress=progress,
        )
        if folder is not None:
            with phases("pictures"):
                _write_pictures(folder, video.name, chosen.name, processor, clip, answers)
        total = len(answers.video.tokens)
        report = AskReport(
            video=str(video),
            source=sampled.source,
            frames={
                "sampled": len(sampled.frames),
                "height": sampled.frames.shape[1],
                "width": sampled.frames.shape[2],
                "timestamps": [round(float(time), 6) for time in sampled.timestamps],
            },
            question=question,
            model=source,
            model_type=model.config.model_type,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            decides=chosen.name,
            selection=compressor.selection_used,
            seed=compressor.seed,
            retention={"asked": compressor.plain_retention, "got": answers.compressed.visual_tokens / total},
            tokens={"visual": total, "grid": list(answers.video.grid)},
            compressed=AnswerReport.of(answers.compressed),
            full=None if answers.full is None else AnswerReport.of(answers.full),
            milliseconds_to_load=round(phases.milliseconds["load"], 2),
            versions=versions("torch", "transformers", "av"),
            before_tower=before_tower_report(compressor, answers.seen),
        )
        if file is not None:
            file.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    return report


def _opened(outputs: AskOutputs, stack: ExitStack) -> tuple[Path | None, Path | None]:
    """The folder of pictures and the file of the report, or what will become them when the stack is closed."""
    pictures, file = outputs.pictures, outputs.json
    folder = pictures and stack.enter_context(output_folder(pictures, PICTURES, overwrite=outputs.overwrite))
    return folder, file and stack.enter_context(output_file(file))


def print_report(report: AskReport, console: Console) -> None:
    """The answer, or both; then what each saw, and the phases up to the first new token."""
    answers = [report.compressed] + ([report.full] if report.full else [])
    names = [report.decides, "all tokens"][: len(answers)]
    for name, answer in zip(names, answers, strict=True):
        text = printable(answer.answer)
        heading = f"{name}: " if len(answers) > 1 else ""
        console.print(f"{heading}{text or '(an empty answer)'}", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("", *names, *(["speed-up"] if len(answers) > 1 else [])):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    visual = f"visual tokens, of {report.tokens['visual']}"
    if (gate := report.before_tower) is not None:
        seen = [gate["encoded"], report.tokens["visual"]][: len(answers)]
        table.add_row("tokens in the vision tower", *map(str, seen))
    table.add_row(visual, *(str(answer.visual_tokens) for answer in answers))
    table.add_row("prompt tokens", *(str(answer.prompt_tokens) for answer in answers), end_section=True)
    for phase in report.compressed.milliseconds:
        table.add_row(phase, *_times([answer.milliseconds.get(phase) for answer in answers]))
    table.add_section()
    table.add_row("first token after", *_times([answer.milliseconds_to_first_token for answer in answers]))
    rates = [answer.tokens_per_second for answer in answers]
    table.add_row("then", *("" if rate is None else f"{rate:.1f} tokens/s" for rate in rates))
    console.print(table)


def fit(size: int | None) -> Callable[[int, int], tuple[int, int]]:
    """What :func:`score_video.video.read_frames` scales frames by: their longest side is at most ``size`` pixels."""

    def scaled(height: int, width: int) -> tuple[int, int]:
        if size is None or max(height, width) <= size:
            return height, width
        return fit_to_patches(height, width, patch=1, size=size)

    return scaled


def _write_pictures(folder: Path, title: str, how: str, processor: Any, clip: Clip, answers: Answers) -> None:
    tokens = answers.video.to("cpu")
    columns = int(tokens.columns[0])
    rows = int(tokens.tokens_per_frame[0]) // columns
    frames = scale_to_grid(seen_frames(processor, clip), rows, columns)
    seen = None if answers.seen is None else answers.seen.encoded.cpu()
    write_pictures(folder, title, how, frames, clip.seconds.numpy(), tokens, answers.index.cpu(), seen=seen)


def _times(milliseconds: list[float | None]) -> list[str]:
    """Cells of a row; of two times also how many times as fast the first is, unless they are one measurement."""
    cells = ["" if time is None else f"{time:.1f} ms" for time in milliseconds]
    if len(milliseconds) == 2:
        compressed, full = milliseconds
        measured = compressed and full and compressed != full
        cells.append(f"{full / compressed:.1f}x" if measured else "")  # type: ignore[operator]
    return cells
