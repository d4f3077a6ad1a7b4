"""The command ``score``. Parses, calls, prints; the work is done elsewhere.

To add a subcommand: write a function here, decorated with ``@app.command()``, that imports what it needs when called
(so that ``--help`` stays quick). A ScoreError or OSError becomes one line and exit status 2; whatever else is raised is
a bug of ours.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from score_video.command_line import exit_status, one_line
from score_video.commands.terminal import console, lines_from_terminal, progress_bar
from score_video.errors import ScoreError
from score_video.files import is_text
from score_video.progress import Phases, quick_imports
from score_video.renamed import warn

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
data = typer.Typer(add_completion=False, rich_markup_mode="markdown", help="Look at data to train on.")
app.add_typer(data, name="data")

METHODS_HELP = (
    "surprise, surprise-l2, norm, evs, evs-capped, evs-dithered, uniform, random, vidcom2, divprune, "
    "divprune-whitened, or package.module:name of your own"
)


def _text(value: Any) -> Any:
    """Of an option or argument that is text. What is not UTF-8 may be a file's name, but nothing else."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str) and not is_text(part):
            raise typer.BadParameter(f"must be text in UTF-8, got {part!r}")
    return value


def _former_name(value: str | None) -> Any:
    """Of an option that has another name since 0.2."""
    if _text(value) is not None:
        warn("--law is now called --selection")
    return value


Policy = Annotated[
    str | None,
    typer.Option(
        help="What decides: a folder that score train or save_pretrained wrote, or an id on the hub, owner/name. "
        "[default: the policy that comes with score]"
    ),
]
Rule = Annotated[str | None, typer.Option(help=f"Or a rule: {METHODS_HELP}.", callback=_text)]
Retention = Annotated[
    float | None, typer.Option(help="Fraction of the tokens to keep. [default: the compressor's, or 0.1]")
]
Selection = Annotated[
    str | None,
    typer.Option(
        help="How logits or a score pick: diverse, systematic or topk. "
        "[default: diverse for a policy, topk for a score]",
        callback=_text,
    ),
]
BeforeTower = Annotated[
    str | None,
    typer.Option(
        help="What chooses from pixels before the vision tower, which then sees only that: a rule or policy and its "
        "retention, such as surprise-l2:0.3. [default: the compressor's, or nothing]",
        callback=_text,
    ),
]
Halo = Annotated[
    int | None,
    typer.Option(
        help="Rings of neighbours that the tower sees besides, with --before-tower. [default: as saved, or 0]", min=0
    ),
]
Law = Annotated[str | None, typer.Option(help="The former name of --selection.", callback=_former_name, hidden=True)]
Truncated = Annotated[
    bool, typer.Option("--allow-truncated", help="Read what there is of a video that ends before its header says so.")
]
Device = Annotated[
    str | None,
    typer.Option(help="Where the model runs: cpu, cuda, cuda:1... [default: a GPU if there is one]", callback=_text),
]
Dtype = Annotated[
    str, typer.Option(help="Type of the weights: float32, bfloat16, float16; auto: as saved.", callback=_text)
]
Tower = Annotated[
    str | None,
    typer.Option(
        help="A vision model of transformers (a folder, or its id on the hub) that makes the tokens. "
        "[default: none, patches of pixels]",
        callback=_text,
    ),
]
Split = Annotated[str, typer.Option(help="Which split of a data set on the hub.", callback=_text)]
Media = Annotated[Path | None, typer.Option(help="Folder that relative paths start from. [default: the file's own]")]
SkipMissing = Annotated[bool, typer.Option("--skip-missing", help="Leave rows out whose video or image is not there.")]
Seed = Annotated[int | None, typer.Option(help="What the method random draws from. [default: 0]", min=0, max=2**63 - 1)]


@app.callback(invoke_without_command=True)
def score(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Compress the visual tokens of videos: keep the surprising ones (SCORE, unofficial).

    Example: `score compress holiday.mp4 --retention 0.1`
    """
    if version:
        import score_video

        print(f"score {score_video.__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def compress(
    context: typer.Context,
    video: Annotated[Path, typer.Argument(help="The video: any file with its picture in it, of any length.")],
    policy: Policy = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Or a rule: {METHODS_HELP}. Repeat it, up to three times, to compare the first with the others, of "
            "which one may be pretrained, the policy that comes with score.",
            callback=_text,
        ),
    ] = None,
    retention: Retention = None,
    selection: Selection = None,
    before_tower: BeforeTower = None,
    halo: Halo = None,
    law: Law = None,
    frames: Annotated[int | None, typer.Option(help="Sample this many frames, evenly in time. [default: 32]")] = None,
    fps: Annotated[float | None, typer.Option(help="Or sample this many frames a second.")] = None,
    tower: Tower = None,
    patch: Annotated[int, typer.Option(help="Side of a patch (one token), in pixels.")] = 28,
    size: Annotated[int, typer.Option(help="Longest side that frames are scaled to, in pixels.")] = 448,
    allow_truncated: Truncated = False,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make. [default: VIDEO's name with -score, here]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
) -> None:
    """Sample a video, cut it into patch tokens, keep those that matter, and show which those are.

    Writes `summary.json`, `tokens.safetensors`, `contact.png` and `overlay.mp4`.

    Keep 10% of the tokens of 32 frames:

        score compress holiday.mp4

    Two rules beside each other, on what DINOv2 sees:

        score compress holiday.mp4 --method surprise --method evs --tower facebook/dinov2-small --out compared

    On features of a tower that sees 30% of its patches, and one ring of neighbours:

        score compress holiday.mp4 --tower facebook/dinov2-small --method divprune
        --before-tower evs-dithered:0.3 --halo 1

    Keep 5% at one frame a second, the most surprising:

        score compress holiday.mp4 --retention 0.05 --fps 1 --method surprise --out holiday
    """
    with progress_bar() as progress:
        phases = Phases(progress)
        if context.obj:
            phases.began_with_the_process()
        with phases("load"), quick_imports():
            from score_video.commands.compress import FILES, CompressOptions, compress_video
            from score_video.commands.frames import Frames
            from score_video.commands.options import all_chosen_by_options, gate_of_option

            options = CompressOptions(Frames(frames, fps, allow_truncated), patch, size, overwrite, tower)
            settings = {"retention": retention, "selection": selection or law, "seed": seed}
            gate = {"before_tower": gate_of_option(before_tower), "halo": halo}
            chosen, *others = all_chosen_by_options(policy, method or [], **settings, **gate)
        if tower is not None:
            _silence_libraries()
        folder = out if out is not None else Path(f"{video.stem}-score")
        summary = compress_video(video, folder, chosen, options, phases, others)
    _print_summary(summary, folder, FILES)


@app.command()
def ask(
    video: Annotated[Path, typer.Argument(help="The video: any file with its picture in it, of any length.")],
    model: Annotated[
        str, typer.Option(help="A folder that holds a model, or its id on the hub, owner/name.", callback=_text)
    ],
    question: Annotated[
        str | None, typer.Argument(help="About the video. [default: read one after another]", callback=_text)
    ] = None,
    policy: Policy = None,
    method: Rule = None,
    retention: Retention = None,
    selection: Selection = None,
    before_tower: BeforeTower = None,
    halo: Halo = None,
    law: Law = None,
    frames: Annotated[int | None, typer.Option(help="Sample this many frames, evenly in time. [default: 32]")] = None,
    fps: Annotated[float | None, typer.Option(help="Or sample this many frames a second.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Longest side that frames are read at, in pixels. [default: as they are]")
    ] = None,
    allow_truncated: Truncated = False,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens after which the answer is cut off.", min=1)] = 64,
    device: Device = None,
    dtype: Dtype = "auto",
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Answer on all tokens too, and show both; with --before-tower the vision tower runs twice.",
        ),
    ] = False,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder to make: contact.png and overlay.mp4 show what the model saw.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the answer and the numbers here too.")] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            help='Ask what is in this file: a JSON object with a "question" a line; or what any file that score train '
            "reads asks about VIDEO."
        ),
    ] = None,
    media: Media = None,
    output: Annotated[Path | None, typer.Option(help="Write the answers to --questions here, line by line.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Keep the compressed video here, to be asked about in place of VIDEO.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier pictures.")] = False,
    seed: Seed = None,
) -> None:
    """Ask a video MLLM about a video, of which it sees only the tokens that are kept; and see where the time goes.

    Without a question, or with --questions, the video is compressed once and asked about many times.

    Keep 10% by the policy that comes with the package, beside the answer on all tokens:

        score ask holiday.mp4 "What happens?" --model Qwen/Qwen2.5-VL-3B-Instruct --compare

    By a policy that was trained for this model:

        score ask holiday.mp4 "What happens?" --model Qwen/Qwen2.5-VL-3B-Instruct --policy run --retention 0.05

    One question after another; and on another day, of what was kept:

        score ask holiday.mp4 --model Qwen/Qwen2.5-VL-3B-Instruct --save holiday.safetensors

        score ask holiday.safetensors --model Qwen/Qwen2.5-VL-3B-Instruct --questions asked.jsonl --output said.jsonl
    """
    _prepare_for_models()
    with quick_imports():
        from score_video.commands import ask as ask_command
        from score_video.commands.frames import Frames
        from score_video.commands.options import chosen_by_options, gate_of_option
        from score_video.drawing.overlay import PICTURES

    options = ask_command.AskOptions(
        device=ask_command.find_device(device),
        dtype=dtype,
        frames=Frames(frames, fps, allow_truncated),
        size=size,
        max_new_tokens=max_new_tokens,
        compare=compare,
    )
    outputs = ask_command.AskOutputs(pictures, json, overwrite)
    settings = {"retention": retention, "selection": selection or law, "seed": seed}
    gate = {"before_tower": gate_of_option(before_tower), "halo": halo}
    chosen = chosen_by_options(policy, method, **settings, **gate)
    if question is None or questions is not None or save is not None or video.suffix == ".safetensors":
        from score_video.commands import ask_many
        from score_video.commands.asked import read_questions

        of_one = {"--compare": compare, "--pictures": pictures, "--json": json}
        if given := [name for name, value in of_one.items() if value]:
            raise ScoreError(f"{given[0]} is for one question about a video file, without --questions and --save")
        of_file = {"--policy": policy, "--method": method, **{f"--{name}": value for name, value in settings.items()}}
        of_file |= {"--before-tower": before_tower, "--halo": halo, "--frames": frames, "--fps": fps, "--size": size}
        if video.suffix == ask_many.SAVED and (given := [name for name, value in of_file.items() if value is not None]):
            raise ScoreError(f"{given[0]} is for a video file: what {video} keeps was decided when it was saved")
        if question is not None and questions is not None:
            raise ScoreError("give a question or --questions, not both")
        files = ask_many.ManyOptions(questions, output, save)
        files.check()
        lines = None if questions is None else read_questions(questions, video, media)
        with progress_bar() as progress:
            asking = ask_many.prepare(video, model, chosen, options, save, progress)
        ask_many.print_ready(asking, console())
        if lines is None:
            asked = [question] if question is not None else lines_from_terminal("? ")
            ask_many.answer_aloud(asking, asked, max_new_tokens, console(), echo=False)
        elif output is None:
            ask_many.answer_aloud(asking, [one["question"] for one in lines], max_new_tokens, console(), echo=True)
        else:
            with progress_bar() as progress:
                took = ask_many.answer_into(asking, lines, max_new_tokens, output, progress)
            print(f"{len(lines)} answers, {took / len(lines):.1f} ms each")
        return
    for name, value in (("--output", output), ("--media", media)):
        if value is not None:
            raise ScoreError(f"{name} needs --questions, a file to read them from")
    with progress_bar() as progress:
        report = ask_command.run(video, question, model, chosen, options, outputs, progress)
    ask_command.print_report(report, console())
    if pictures is not None:
        for picture in PICTURES:
            print(f"  {one_line(str(pictures / picture))}")


@app.command()
def embed(
    videos: Annotated[list[Path], typer.Argument(help="The videos.", metavar="VIDEO...")],
    model: Annotated[
        str, typer.Option(help="A folder that holds a model, or its id on the hub, owner/name.", callback=_text)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the files, one for each video.")],
    compressor: Annotated[
        str | None,
        typer.Option(
            help=f"pretrained; a rule: {METHODS_HELP.partition(', or ')[0]}; or a policy's folder or id. "
            "[default: pretrained]",
            callback=_text,
        ),
    ] = None,
    retention: Retention = None,
    frames: Annotated[int | None, typer.Option(help="Sample this many frames, evenly in time. [default: 32]")] = None,
    fps: Annotated[float | None, typer.Option(help="Or sample this many frames a second.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Longest side that frames are read at, in pixels. [default: as they are]", min=1)
    ] = None,
    allow_truncated: Truncated = False,
    device: Device = None,
    dtype: Dtype = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make files anew that are there.")] = False,
    shard: Annotated[
        str | None,
        typer.Option(help="I/N: only every N-th video from the I-th on, for the I-th of N processes.", callback=_text),
    ] = None,
    tar: Annotated[
        int | None,
        typer.Option(help="Also put the files into tar files of at most so many megabytes, for WebDataset.", min=1),
    ] = None,
) -> None:
    """Compress videos once, to be asked about many times: write what a model sees of each into a file.

    Goes on where it was stopped. A video that cannot be read is reported and skipped; exits with 1 then.

        score embed *.mp4 --model Qwen/Qwen2.5-VL-3B-Instruct --retention 0.05 --out kept

        score ask kept/holiday.safetensors "What happens?" --model Qwen/Qwen2.5-VL-3B-Instruct

    Several processes share the work, each with the same videos:

        CUDA_VISIBLE_DEVICES=0 score embed *.mp4 ... --out kept --shard 1/2 &
        CUDA_VISIBLE_DEVICES=1 score embed *.mp4 ... --out kept --shard 2/2
    """
    _prepare_for_models()
    with quick_imports():
        from score_video.commands import embed as command
        from score_video.commands.ask import DTYPES, find_device
        from score_video.commands.frames import Frames
        from score_video.commands.options import Chosen
        from score_video.compressor import PRETRAINED, Compressor

    if dtype not in DTYPES:
        raise ScoreError(f"there is no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    chosen = Chosen(Compressor.from_pretrained(compressor or PRETRAINED, retention=retention), compressor or PRETRAINED)
    options = command.EmbedOptions(find_device(device), dtype, Frames(frames, fps, allow_truncated), size)
    share = command.ALL if shard is None else command.Shard.read(shard)
    with progress_bar() as progress:
        done = command.run(videos, model, chosen, options, out, shard=share, overwrite=overwrite, progress=progress)
    for video, reason in done.broken.items():
        print(f"score: {one_line(video)}: {one_line(reason)}", file=sys.stderr)
    print(
        f"{len(done.made)} written ({done.kept} of {done.tokens} visual tokens kept), {len(done.there)} already there"
    )
    if tar is not None:
        tars = command.write_tar_files(videos, done, out, share, tar)
        print(f"{len(tars)} tar file{'' if len(tars) == 1 else 's'} of {len(done.made) + len(done.there)} videos")
    if done.broken:
        raise typer.Exit(1)


@app.command("app")
def page(
    compressor: Annotated[
        list[str] | None,
        typer.Option(
            help="Shown first, up to three: a rule, or a policy's folder or id; repeat it. "
            "[default: pretrained and evs; the page offers the others]",
            callback=_text,
        ),
    ] = None,
    tower: Tower = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A video MLLM (a folder, or its id on the hub): its tokens, and questions to it.", callback=_text
        ),
    ] = None,
    before_tower: BeforeTower = None,
    halo: Halo = None,
    device: Device = None,
    dtype: Dtype = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.", callback=_text)] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 7860,
    share_password: Annotated[
        str | None, typer.Option(help="What those who open the page from elsewhere have to give.", callback=_text)
    ] = None,
    share_without_password: Annotated[
        bool, typer.Option("--share-without-password", help="Let anybody in who can reach --host.")
    ] = False,
    max_upload: Annotated[int, typer.Option(help="Largest upload, in megabytes.", min=1, max=4096)] = 256,
    browse: Annotated[bool, typer.Option("--browse", help="Open a browser there.")] = False,
) -> None:
    """Open a page to try, compare and explain what is kept of a clip. Nothing leaves this machine.

    On a page of this machine's own:

        score app

    Beside two rules:

        score app --compressor run --compressor evs-dithered --compressor divprune

    What DINOv2 makes of a part of its patches, and which these are:

        score app --tower facebook/dinov2-small --before-tower evs-dithered:0.3 --halo 1
    """
    try:
        with quick_imports():
            from score_video.app.gate import find_gate
            from score_video.app.serve import Listen, listening_on, serve
            from score_video.app.studio import Studio, find_compressors, find_source
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "anyio"):
            raise
        raise ScoreError(f'score app needs {error.name}: pip install "score-video[app]"') from None
    listen = Listen(host, port, share_password, share_without_password)
    with listening_on(listen) as listening:  # before a model is loaded for nothing
        if model is not None:
            _prepare_for_models()
        elif tower is not None:
            _silence_libraries()
        given = find_compressors(compressor or [])
        source = find_source(tower, model, device, dtype, find_gate(before_tower, halo, given))
        studio = Studio(given, source, max_bytes=max_upload * 2**20)

        def said(address: str) -> None:
            print(f"score: the page is at {address} (Ctrl-C ends it)", flush=True)

        try:
            serve(studio, listen, listening, said, browse=browse)
        finally:
            studio.pages.shut()


@app.command("eval")
def evaluate(
    policy: Policy = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Or a rule: {METHODS_HELP}, or oracle of the miniature; repeat it on a model.", callback=_text
        ),
    ] = None,
    retention: Annotated[
        list[str] | None,
        typer.Option(help="Fractions to keep: repeat it, or put commas. [default: 0.1]", callback=_text),
    ] = None,
    selection: Selection = None,
    before_tower: BeforeTower = None,
    halo: Halo = None,
    law: Law = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Kind of videos; repeat it. [default: all]", callback=_text)
    ] = None,
    videos: Annotated[int, typer.Option(help="Test videos of each split.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="What videos are drawn from.", min=0, max=2**63 - 1)] = 0,
    footage: Annotated[Path | None, typer.Option(help="A video, for the backgrounds of the split footage.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the numbers here too.")] = None,
    environment: Annotated[
        str,
        typer.Option(help="What answers: miniature, or mllm, a video MLLM on questions of yours.", callback=_text),
    ] = "miniature",
    model: Annotated[
        str | None, typer.Option(help="mllm: a video MLLM, a folder or its id on the hub.", callback=_text)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="mllm: questions, any file that score train reads.", callback=_text)
    ] = None,
    media: Media = None,
    skip_missing: SkipMissing = False,
    frames: Annotated[int, typer.Option(help="mllm: sample this many of each video.", min=1)] = 16,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Score policies and training-free methods: on test videos of the miniature world, or on questions of your own.

    Splits: plain, lookalike, static, density, long, and footage (with --footage). Accuracy is the frozen reader's on
    the tokens that are kept.

    A policy at 5% and 10% on 600 videos that nobody has seen:

        score eval --policy run --retention 0.05,0.1 --split lookalike --videos 600 --seed 12345

    What it is to be compared with:

        score eval --method evs-dithered --split lookalike

    Rules beside each other and beside all tokens, on a model and questions of your own (teacher-forced):

        score eval --environment mllm --model Qwen/Qwen2.5-VL-7B-Instruct --data test.jsonl --retention 0.05,0.1
        --method pretrained --method divprune --method evs
    """
    if environment not in ("miniature", "mllm"):
        raise ScoreError(f"--environment must be miniature or mllm, got {environment!r}")
    if environment == "mllm":
        _prepare_for_models()
    with progress_bar() as progress:
        with quick_imports():
            from score_video.commands import evaluate as eval_command
            from score_video.files import check_output_file, write_json
            from score_video.miniature.environment import MiniatureEnvironment

        if json is not None:
            check_output_file(json)
        retentions = eval_command.parse_numbers(retention or ["0.1"])
        if environment == "mllm":
            from score_video.commands import evaluate_mllm
            from score_video.commands.ask import find_device
            from score_video.commands.options import gate_of_option

            if model is None or data is None:
                raise ScoreError(f"--environment mllm needs {'--model' if model is None else '--data'}")
            if split or footage:
                raise ScoreError(f"{'--split' if split else '--footage'} is for the miniature")
            gate = gate_of_option(before_tower)
            chosen = evaluate_mllm.find_rules(policy, method or [], selection or law, seed, gate, halo)
            one_question = any(one.compressor.needs_question for one in chosen)
            questions = evaluate_mllm.load_questions(data, media, skip_missing, one_question)
            world = evaluate_mllm.load_environment(model, find_device(device), dtype, chosen, num_frames=frames)
            how = {"model": model, "data": data, "frames": frames}
            report = how | evaluate_mllm.run(world, questions, chosen, retentions, progress)
        else:
            if model or data or media:
                raise ScoreError("--model, --data and --media are for --environment mllm")
            if before_tower or halo:
                raise ScoreError(f"{'--before-tower' if before_tower else '--halo'} is for --environment mllm")
            splits = eval_command.find_splits(split or [], footage is not None)
            if method is not None and len(method) > 1:
                raise ScoreError(f"--method can be given once on the miniature, got {', '.join(method)}")
            miniature = MiniatureEnvironment(footage=footage)
            choice = eval_command.find_choice(policy, method[0] if method else None, selection or law, seed, miniature)
            report = eval_command.run(miniature, choice, splits, retentions, videos, seed, progress)
    if json is not None:
        write_json(json, report)
    (evaluate_mllm if environment == "mllm" else eval_command).print_report(report, console())


@app.command()
def bench(
    output: Annotated[Path, typer.Option(help="Folder for the runs and the report; what is there is not run again.")],
    config: Annotated[Path | None, typer.Option(help="YAML with any of the options below; flags override it.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="A published comparison: model, frames, tasks and retentions. See docs.", callback=_text),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A video MLLM, a folder or its id on the hub; repeat it.", callback=_text),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task of lmms-eval: videomme, mvbench, ...; repeat it.", callback=_text)
    ] = None,
    compressor: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A folder, an id, pretrained, or a rule: {METHODS_HELP}; resize and fewer-frames show the model a "
            "smaller video of as many tokens; repeat it. [default: pretrained]",
            callback=_text,
        ),
    ] = None,
    retention: Annotated[
        list[str] | None,
        typer.Option(help="Fractions to keep: repeat it, or put commas. [default: 0.1]", callback=_text),
    ] = None,
    model_args: Annotated[
        str | None, typer.Option(help="More of lmms-eval's --model_args: max_num_frames=32,...", callback=_text)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Prompts at a time. [default: 1]", min=1)] = None,
    limit: Annotated[int | None, typer.Option(help="Questions of each task. [default: all]", min=1)] = None,
    include_path: Annotated[Path | None, typer.Option(help="Folder with tasks of your own, for lmms-eval.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be downloaded, how long it takes, and the commands; stop."),
    ] = False,
    tflops: Annotated[
        float, typer.Option(help="For --dry-run: 10^12 floating-point operations a second that are reached.", min=0.001)
    ] = 300.0,
) -> None:
    """Compare compressors on benchmarks: lmms-eval for each model, compressor and retention, and for all tokens.

    Needs `pip install "score-video[eval]"`. Goes on where it was stopped. Writes report.json, report.md and report.png;
    exits with 1 if a run failed.

        score bench --model Qwen/Qwen2.5-VL-7B-Instruct --task videomme --output bench
        --compressor pretrained --compressor divprune --compressor resize --retention 0.05,0.1
    """
    from score_video.commands import bench as command

    options = {
        "protocol": protocol,
        "model": model,
        "task": task,
        "compressor": compressor,
        "retention": retention,
        "model_args": model_args,
        "batch_size": batch_size,
        "limit": limit,
        "include_path": None if include_path is None else str(include_path),
    }
    chosen = command.choose(config, options)
    if dry_run:
        _silence_libraries()
        print(command.dry_run(chosen, output, tflops))
        return
    report = command.run(chosen, output)
    if report["errors"]:
        raise typer.Exit(1)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Option(help="YAML; docs/training.md has the keys. [default: all defaults]")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Folder of the run. [default: score-train]")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Settings for all that is not given: paper, the paper's own recipe.", callback=_text),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps (max_steps).")] = None,
    retention: Annotated[float | None, typer.Option(help="Fraction of the tokens kept in training.")] = None,
    seed: Annotated[int | None, typer.Option(help="What everything is drawn from.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; repeat it.", callback=_text),
    ] = None,
    settings: Annotated[bool, typer.Option("--settings", help="List the settings and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's latest checkpoint.")] = False,
    resume_from: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Go on from an older one, checkpoint-N; what came after it is set aside.",
            callback=_text,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")] = False,
) -> None:
    """Train a policy by group-wise reinforcement learning on a frozen model. Flags override the file.

    On the miniature world, with the defaults:

        score train --output-dir run

    By the paper's own recipe, as far as it is published:

        score train --preset paper --output-dir run

    From a file; then on, after it was stopped:

        score train --config train.yaml --set num_generations=16 --output-dir run

        score train --resume --output-dir run

    From an older checkpoint, because the latest is damaged, say:

        score train --resume-from checkpoint-200 --output-dir run

    In two processes: `torchrun --nproc-per-node 2 -m score_video.cli train --config train.yaml`
    """
    from score_video.commands import train as train_command

    if settings:
        for name, default, text in train_command.describe_settings():
            print(f"{name} = {default}\n    {text}")
        return
    from score_video.commands.train_config import parse_settings

    flags = {"max_steps": steps, "retention": retention, "seed": seed}
    given = {name: value for name, value in flags.items() if value is not None}
    metrics = train_command.train(
        config,
        output=output_dir,
        settings={**given, **parse_settings(setting or [])},
        preset=preset,
        resume=resume,
        resume_from=resume_from,
        overwrite=overwrite,
        bar=sys.stderr.isatty(),
    )
    train_command.leave_process_group()
    if metrics is None:
        return  # it is said: by another process, or that the run was finished
    shown = ", ".join(f"{name.removeprefix('eval_')} {value:.4f}" for name, value in metrics.items() if name != "epoch")
    print(f"trained; on validation videos: {shown}" if shown else "trained")


@data.command("check")
def check_data(
    files: Annotated[
        list[str],
        typer.Argument(help="Files of questions: what data.train and data.validation name.", metavar="FILE..."),
    ],
    frames: Annotated[int, typer.Option(help="Sample this many of each video: num_frames of the training.")] = 16,
    split: Split = "train",
    media: Media = None,
    workers: Annotated[
        int | None, typer.Option(help="Files read at a time. [default: one for each core]", min=1)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report here too.")] = None,
) -> None:
    """Read every row, and every video and image, as a training would; say which are broken, and why.

    Exit status: 0 if nothing is broken, 1 if something is.

        score data check train.jsonl validation.jsonl --frames 64
    """
    with progress_bar() as progress:
        from score_video.commands import data as data_command

        report = data_command.run(
            files,
            num_frames=frames,
            split=split,
            media=media,
            workers=workers,
            json_file=json,
            progress=progress,
        )
    data_command.print_report(report)
    if report["broken"]:
        raise typer.Exit(1)


@data.command("filter")
def filter_data(
    file: Annotated[str, typer.Argument(help="Questions: any file that score train reads.", metavar="FILE")],
    model: Annotated[str, typer.Option(help="The video MLLM: a folder, or its id on the hub.", callback=_text)],
    output: Annotated[Path, typer.Option(help="JSONL to write: what needs the video.")],
    dropped: Annotated[Path | None, typer.Option(help="JSONL to write: what was left out, and why.")] = None,
    split: Split = "train",
    media: Media = None,
    skip_missing: SkipMissing = False,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Leave out the questions that a model answers rightly without the video: they cannot teach a policy anything.

    Of multiple choice with n options one in n of those that nobody could know is lost with them.
    Where it was killed, the same command goes on: verdicts are in OUTPUT.unfinished until all are there.

        score data filter train.json --model Qwen/Qwen2.5-VL-7B-Instruct --output left.jsonl --dropped blind.jsonl
    """
    _prepare_for_models()
    with progress_bar() as progress:
        from score_video.commands import filter as filter_command
        from score_video.commands.ask import find_device
        from score_video.commands.evaluate_mllm import load_environment

        filter_command.check_outputs(output, dropped)
        small = {"num_frames": filter_command.FRAMES, "max_pixels": filter_command.MAX_PIXELS}
        environment = load_environment(model, find_device(device), dtype, [], **small)
        found = filter_command.run(
            file,
            environment,
            output,
            dropped,
            split=split,
            media=media,
            skip_missing=skip_missing,
            progress=progress,
        )
    unread = f", {found.unreadable} cannot be read" if found.unreadable else ""
    print(
        f"{found.kept_questions} of {found.questions} questions need the video{unread}; "
        f"{found.kept_rows} rows in {output}"
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("score-demo"),
    steps: Annotated[int, typer.Option(help="Optimiser steps of the training.", min=1)] = 300,
    videos: Annotated[int, typer.Option(help="Test videos of the comparison.", min=2)] = 200,
    seed: Annotated[int, typer.Option(help="What the policy begins from, and which videos.", min=0)] = 0,
    reader: Annotated[Path | None, typer.Option(help="A reader's weights. [default: those of the package]")] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="First make the reader anew, from random weights: half an hour.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
) -> None:
    """Train a policy on the miniature world while you watch, and compare it with every rival at the same exact count.

    Takes about two minutes on two cores. Writes `policy`, `results.json`, `accuracy.png` and `kept.png`.
    """
    from score_video.commands.demo import FILES, print_results
    from score_video.commands.demo import demo as run
    from score_video.files import check_output_file, check_output_folder, write_errors
    from score_video.miniature.environment import MiniatureEnvironment

    check_output_folder(out, FILES, overwrite=overwrite)  # before the half an hour that a reader takes
    if from_scratch:
        from score_video.miniature.train_reader import main as make_reader

        if reader is None or reader.exists():
            raise ScoreError("with --from-scratch, --reader must name a file that is not there yet: where it is kept")
        check_output_file(reader)
        with write_errors(reader, reader):
            make_reader(reader)
    bar = sys.stderr.isatty()
    results = run(
        out,
        steps=steps,
        videos=videos,
        seed=seed,
        overwrite=overwrite,
        bar=bar,
        progress=progress_bar,
        environment=MiniatureEnvironment(reader),
    )
    print_results(results, console())
    for name in FILES:
        print(f"  {one_line(str(out / name))}")


def _prepare_for_models() -> None:
    """Sees that processors can run, and that libraries keep to themselves. Raises ScoreError where they cannot."""
    with quick_imports():
        from score_video.mllm.torchvision_check import check_torchvision

        try:
            check_torchvision()
        except ImportError as error:
            raise ScoreError(str(error)) from None
    _silence_libraries()


def _silence_libraries() -> None:
    """For commands that load a model or a tower: advice is about what is set on purpose here, bars stand in the way of
    ours, and the hub's retries end in one line of ours."""
    with quick_imports():
        from huggingface_hub.utils import logging as hub_logging
        from transformers.utils import logging
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def _print_summary(summary: dict[str, Any], folder: Path, files: tuple[str, ...]) -> None:
    sampled = summary["frames"]["sampled"]
    reason = summary["frames"]["fewer_because"]
    fewer = f" (of {summary['frames']['asked']['frames']} asked for: {reason})" if reason else ""
    print(
        f"kept {summary['kept']} of {summary['tokens']} tokens ({summary['retention']['got']:.2%}) "
        f"of {sampled} frames{fewer} in {summary['seconds']:.2f} s"
    )
    if (seen := summary["before_tower"]) is not None:
        share = seen["encoded"] / summary["tokens"]
        around = seen["encoded"] - seen["kept"]
        print(f"the tower saw {share:.2%} of its patches: {seen['kept']} that were chosen, {around} around them")
    for other in summary["compared"]:
        name = one_line(other["method"])
        print(f"{name}: kept {other['kept']}, {other['kept_by_both']} of them by {one_line(summary['method'])} too")
    print("  s:", ", ".join(f"{phase} {time / 1000:.2f}" for phase, time in summary["milliseconds"].items()))
    for name in files:
        print(f"  {one_line(str(folder / name))}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status (:func:`score_video.command_line.exit_status`)."""
    # obj: whether this process is here for the command alone
    return exit_status(
        lambda: app(arguments, prog_name="score", standalone_mode=False, obj=arguments is None),
        "score",
        _less_memory(sys.argv[1:] if arguments is None else arguments),
    )


def _less_memory(arguments: list[str]) -> str:
    """What takes less of it in the command that ran out of it."""
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command == "train":
        return ": take a smaller per_device_train_batch_size or num_generations, or max_tokens_per_forward of an MLLM"
    if command == "data":
        return ": read fewer files at a time (--workers)"
    return "" if command in ("eval", "demo") else ": take fewer (--frames, --fps) or smaller (--size) frames"


if __name__ == "__main__":
    sys.exit(main())
