"""``score ask`` without a question: many, one after another, about a video that is compressed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TextStreamer

from score_video.commands.ask import DTYPES, AnswerReport, AskOptions, fit
from score_video.commands.options import Chosen
from score_video.commands.seen import before_tower_named
from score_video.commands.terminal import printable
from score_video.errors import ScoreError
from score_video.files import check_output_file, output_file
from score_video.mllm.ask import Answer, check_policy, warm_up_clip, without_gate
from score_video.mllm.compressed_video import CompressedVideo, compress_video
from score_video.mllm.conversation import clip_of_video
from score_video.mllm.load import load_model, load_processor
from score_video.mllm.video_session import VideoSession
from score_video.progress import Phases, Progress

SAVED = ".safetensors"
"""How the name of a compressed video ends, which may be asked about in the place of a video."""


@dataclass(frozen=True)
class ManyOptions:
    """Where questions come from and answers go.

    Attributes:
        questions: a file of a JSON object a line, each with a "question"; None: they are read as they are asked.
        output: a file for the same objects with what was answered; None: answers are printed.
        save: a file for the compressed video; None: it is not kept.
    """

    questions: Path | None = None
    output: Path | None = None
    save: Path | None = None

    def check(self) -> None:
        """Raises OSError or ScoreError where a file cannot be written, or there is nothing to write into it."""
        for file in (self.output, self.save):
            if file is not None:
                check_output_file(file)
        if self.output is not None and self.questions is None:
            raise ScoreError("--output needs --questions, a file to read them from")
        if self.save is not None and self.save.suffix != SAVED:
            raise ScoreError(f"--save must be a name that ends with {SAVED}, got {self.save}")


@dataclass(frozen=True)
class Asking:
    """A model that is ready to be asked about a video.

    Attributes:
        session: the model with the video.
        processor: the model's.
        milliseconds: what getting ready took, by phase.
    """

    session: VideoSession
    processor: Any
    milliseconds: Mapping[str, float]


def prepare(
    video: Path, source: str, chosen: Chosen, options: AskOptions, save: Path | None, progress: Progress | None = None
) -> Asking:
    """Loads a model, and compresses a video or reads a compressed one.

    Args:
        video: a video file, or one that was saved.
        source: the model's folder or id, as for :func:`score_video.mllm.load.load_model`.
        chosen: decides which tokens the model sees; of no use for a video that is compressed already.
        options: how it is asked.
        save: a file for the compressed video; None: it is not kept.
        progress: told how far things are.

    Raises:
        ValueError, OSError: an unusable model or video, output that cannot be written.
    """
    phases = Phases(progress)
    with phases("load"):
        processor = load_processor(source)
        model = load_model(source, options.device, DTYPES[options.dtype])
    if video.suffix == SAVED:
        with phases("read"):
            compressed = CompressedVideo.load(video, model, processor)
    else:
        compressed = _compressed(model, processor, video, chosen, options, phases)
    if save is not None:
        compressed.save(save)
    return Asking(VideoSession(model, processor, compressed), processor, phases.milliseconds)


def print_ready(asking: Asking, console: Console) -> None:
    """How much was kept, and what that took."""
    video = asking.session.video
    times = ", ".join(f"{name} {time:.1f} ms" for name, time in asking.milliseconds.items() if name != "load")
    kept = f"{len(video.index)} of {video.num_tokens} visual tokens kept"
    console.print(f"{kept} ({times})", markup=False, highlight=False, soft_wrap=True)


def answer_aloud(asking: Asking, asked: Iterable[str], max_new_tokens: int, console: Console, *, echo: bool) -> None:
    """Prints answers as their tokens come, and what each took. echo: prints the questions too."""
    for question in asked:
        if echo:
            console.print(f"? {printable(question)}", markup=False, highlight=False, soft_wrap=True)
        streamer = _Printing(asking.processor.tokenizer, console.file.write, console.file.flush)
        answer = asking.session.ask(question, max_new_tokens=max_new_tokens, streamer=streamer)
        if not streamer.said.strip():
            console.print("(an empty answer)", markup=False)
        console.print(f"  {_times(answer)}", markup=False, highlight=False, soft_wrap=True, style="dim")


def answer_into(
    asking: Asking, lines: Sequence[Mapping[str, Any]], max_new_tokens: int, output: Path, progress: Progress | None
) -> float:
    """Writes the lines with their answers, all of them or nothing.

    Returns:
        milliseconds, of all answers.

    Raises:
        OSError: ``output`` cannot be written.
    """
    phases = Phases(progress)
    with output_file(output) as temporary, temporary.open("w", encoding="utf-8") as file, phases("answers") as step:
        for number, line in enumerate(lines):
            answer = asking.session.ask(line["question"], max_new_tokens=max_new_tokens)
            report = asdict(AnswerReport.of(answer))
            file.write(json.dumps({**line, **report}, ensure_ascii=False) + "\n")
            step(number + 1, len(lines))
    return phases.milliseconds["answers"]


def _compressed(
    model: Any, processor: Any, video: Path, chosen: Chosen, options: AskOptions, phases: Phases
) -> CompressedVideo:
    """What is left of a video file. Something small goes through everything first, unmeasured, as in ``score ask``."""
    compressor = chosen.compressor
    check_policy(model, compressor.method, chosen.name)
    with phases("decode") as step:
        sampled = options.frames.read(video, fit(options.size), step)
    clip = clip_of_video(sampled)
    # without what chooses before the tower, for which two frames may be too few
    small = compress_video(model, processor, warm_up_clip(clip), without_gate(compressor))
    VideoSession(model, processor, small).ask("?", max_new_tokens=2)
    about: Mapping[str, Any] = {
        "video": video.name,
        "decides": chosen.name,
        "selection": compressor.selection_used,
        "seed": compressor.seed,
        "retention": compressor.plain_retention,
    }
    if (before := before_tower_named(compressor)) is not None:
        about = {**about, "before_tower": before}
    return compress_video(model, processor, clip, compressor, about=about, phases=phases)


class _Printing(TextStreamer):
    """Prints an answer as it comes, with what would move a terminal's cursor spelt out."""

    def __init__(self, tokenizer: Any, write: Callable[[str], Any], flush: Callable[[], Any]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write, self._flush = write, flush
        self.said = ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.said += text
        self._write(printable(text) + ("\n" if stream_end and self.said.strip() else ""))
        self._flush()


def _times(answer: Answer) -> str:
    phases = " + ".join(f"{name} {time:.1f}" for name, time in answer.milliseconds.items())
    rate = answer.tokens_per_second
    then = "" if rate is None else f", then {rate:.1f} tokens/s"
    return f"first token after {answer.time_to_first_token:.1f} ms: {phases}{then}"
