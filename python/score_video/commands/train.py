"""``score train``: from a configuration file to a trained policy in a folder."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_video.checks import is_number
from score_video.command_line import one_line
from score_video.errors import ScoreError
from score_video.files import write_errors

if TYPE_CHECKING:
    from score_video.before_tower import Gate
    from score_video.commands.run_folder import RunFolder
    from score_video.rl.config import ScoreConfig
    from score_video.rl.curriculum import Examples
    from score_video.rl.environment import Environment

OUTPUT = "score-train"
"""Where a run goes that says nothing of it."""


@dataclass(frozen=True)
class TrainingSetup:
    """Where a policy is trained, and what it must fit.

    Attributes:
        environment: the frozen model.
        train: examples, or data sets by name for the stages.
        validation: examples to evaluate on at the end; None: no evaluation.
        token_width, question_width: D and E of what the policy sees; E is 0 where it sees no question.
    """

    environment: Environment
    train: Examples | Mapping[str, Examples]
    validation: Examples | None
    token_width: int
    question_width: int


Factory = Callable[[Mapping[str, Any], Mapping[str, Any], "ScoreConfig"], TrainingSetup]
"""(environment_options, data, the settings) -> where to train. Raises ValueError for options that there are not."""


def _miniature(options: Mapping[str, Any], data: Mapping[str, Any], settings: ScoreConfig) -> TrainingSetup:
    """The miniature world: ``data`` says which videos it makes, by the arguments of ``MiniatureVideos``."""
    from score_video.commands.train_config import check_keys
    from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos

    def videos(given: Any, partition: str, number: int) -> MiniatureVideos:
        where = f"data.{'train' if partition == 'train' else 'validation'}"
        if not isinstance(given, Mapping):
            raise ScoreError(f"{where}: must be a mapping, got {given!r}")
        check_keys(given, [name for name in _arguments(MiniatureVideos) if name != "partition"], where)
        made = MiniatureVideos(**{"split": "plain", "seed": 0, "num_videos": number, **given, "partition": partition})
        if len(made) == 0:
            raise ScoreError(f"{where}: num_videos must be at least 1, got 0")
        return made

    check_keys(options, ("reader", "footage", "before_tower", "pixels", "halo"), "environment_options")
    check_keys(data, ("train", "validation"), "data")
    reader, footage = (None if (path := options.get(name)) is None else Path(path) for name in ("reader", "footage"))
    environment = MiniatureEnvironment(reader, footage, _gate(options), **_on_pixels(options))
    stages = {stage.data or stage.name: stage.name for stage in settings.parsed_stages()}  # data set -> what it is for
    names = list(stages)
    stills = {"split": "static", "still": True}
    of_stages = {name: stills if stage == "pseudo_video" else {} for name, stage in stages.items()}
    given = data.get("train") or ({} if settings.stages is None else of_stages)
    by_name = settings.stages is not None and set(given) == set(names)
    train = {n: videos(given[n], "train", 100_000) for n in names} if by_name else videos(given, "train", 100_000)
    validation = videos(data.get("validation") or {}, "validation", 512)
    encoded = environment.encode([validation[0]])
    question_width = 0 if encoded.question is None else encoded.question.shape[1]
    return TrainingSetup(environment, train, validation, encoded.videos.tokens.shape[1], question_width)


def _mllm(options: Mapping[str, Any], data: Mapping[str, Any], settings: ScoreConfig) -> TrainingSetup:
    """A video MLLM of transformers: ``environment_options`` name it, ``data`` the files of questions."""
    import torch

    from score_video.before_tower import check_pixels
    from score_video.commands.ask import DTYPES
    from score_video.commands.train_config import check_keys
    from score_video.mllm.environment import MllmEnvironment, PixelEnvironment, check_options
    from score_video.mllm.load import load_model, load_processor
    from score_video.mllm.sharding import Sharding
    from score_video.mllm.torchvision_check import check_torchvision

    own = ("model", "dtype", "device_map", "sharded", "before_tower", "pixels", "halo")
    arguments = [name for name in _arguments(MllmEnvironment) if name not in ("model", "processor", "sharding")]
    check_keys(options, (*own, *arguments), "environment_options")
    check_keys(data, ("train", "validation"), "data")
    if not isinstance(source := options.get("model"), str):
        raise ScoreError(f"environment_options: model must be a folder or an id on the hub, got {source!r}")
    if (dtype := options.get("dtype", "auto")) not in DTYPES:
        raise ScoreError(f"environment_options: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not isinstance(device_map := options.get("device_map"), str | Mapping | None):
        raise ScoreError(f"environment_options: device_map must be text or a mapping, got {device_map!r}")
    if device_map is not None and settings.world_size > 1:
        raise ScoreError(f"environment_options: device_map is for one process alone, got {settings.world_size} of them")
    if not isinstance(sharded := options.get("sharded", False), bool):
        raise ScoreError(f"environment_options: sharded must be true or false, got {sharded!r}")
    gate, on_pixels = _gate(options), _on_pixels(options)
    given = {name: value for name, value in options.items() if name not in own}
    check_options(given)
    one = given.get("one_question", False)
    check_pixels(gate=gate, one_question=one, **on_pixels)
    train: Any = data.get("train")
    if isinstance(train, Mapping) and "source" not in train:
        names = dict.fromkeys(stage.data or stage.name for stage in settings.parsed_stages())
        if settings.stages is None or set(train) != set(names):
            raise ScoreError(
                f"data.train: must be one data set, or by name those of the stages ({', '.join(names)}), "
                f"got {', '.join(map(str, train)) or 'none'}"
            )
        train = {name: _asked(train[name], one, f"data.train.{name}") for name in names}
    else:
        train = _asked(train, one, "data.train")
    validation = data.get("validation")
    asked = None if validation is None else _asked(validation, one, "data.validation")
    try:
        check_torchvision()
    except ImportError as error:
        raise ScoreError(str(error)) from None
    processor = load_processor(source)
    make = partial(PixelEnvironment, halo=on_pixels["halo"]) if on_pixels["pixels"] else MllmEnvironment
    environment: MllmEnvironment
    if sharded and settings.world_size > 1:
        sharding = Sharding(settings.device)
        whole = partial(load_model, source, torch.device("cpu"), DTYPES[dtype])
        environment = sharding.in_turns(lambda: make(whole(), processor, **given, sharding=sharding))
    else:
        model = load_model(source, settings.device, DTYPES[dtype], device_map)
        environment = make(model, processor, **given)
    if gate is not None:
        environment = environment.behind(gate)
    width = environment.token_width
    return TrainingSetup(environment, train, asked, width, width if one else 0)


def _gate(options: Mapping[str, Any]) -> Gate | None:
    """What ``before_tower``, NAME:RETENTION, and ``halo`` of ``environment_options`` stand for."""
    from score_video.commands.options import gate_of_option
    from score_video.compressor import Compressor

    where = "environment_options: before_tower"
    if not isinstance(text := options.get("before_tower"), str | None):
        raise ScoreError(f"{where} must be NAME:RETENTION, got {text!r}")
    before, halo = gate_of_option(text, where), options.get("halo", 0)
    if before is None:
        if halo and not options.get("pixels"):
            raise ScoreError(f"environment_options: halo must be 0 without before_tower or pixels, got {halo!r}")
        return None
    # what stands behind is another thing; here it is only one that may
    try:
        return Compressor("uniform", before.retention if before else 1.0, before_tower=before, halo=halo).gate
    except TypeError as error:
        raise ScoreError(f"environment_options: {error}") from None


def _on_pixels(options: Mapping[str, Any]) -> dict[str, Any]:
    """``pixels`` of ``environment_options``, and ``halo`` where that goes with it and not with ``before_tower``."""
    pixels = options.get("pixels", False)
    return {"pixels": pixels, "halo": options.get("halo", 0) if pixels else 0}


def _asked(given: Any, one_question: bool, where: str) -> Examples:
    """Examples of a file, a folder or the hub, or of several of them.

    Args:
        given: its name; a mapping with its ``source``, and ``split``, ``media`` and ``skip_missing`` of
            :func:`score_video.rl.data.load_examples`; or a list of these, each with its ``weight``, 1 if not given.
        where: the key that it stands at.
    """
    from score_video.commands.train_config import check_keys
    from score_video.rl.data import MixedExamples, OneQuestionEach, load_examples

    if isinstance(given, list):
        sets, weights = [], []
        for number, one in enumerate(given, start=1):
            one = dict(one) if isinstance(one, Mapping) else {"source": one}
            weights.append(one.pop("weight", 1))
            sets.append(_asked(one, one_question, f"{where}, set {number}"))
        if not given or not all(map(is_number, weights)):
            raise ScoreError(f"{where}: must be sets of examples with numbers as weights, got weights {weights}")
        try:
            return MixedExamples(zip(sets, weights, strict=True))
        except ScoreError as error:
            raise ScoreError(f"{where}: {error}") from None
    given = dict(given) if isinstance(given, Mapping) else {"source": given}
    check_keys(given, ("source", "split", "media", "skip_missing"), where)
    source = given.pop("source", None)
    if not isinstance(source, str) or not isinstance(given.get("split", ""), str):
        raise ScoreError(f"{where}: must be a file, a saved data set or an id on the hub, got {source!r}")
    if not isinstance(given.get("media", ""), str) or not isinstance(given.get("skip_missing", False), bool):
        raise ScoreError(f"{where}: media must be a folder and skip_missing true or false, got {given}")
    examples = load_examples(source, **given)
    return OneQuestionEach(examples) if one_question else examples


ENVIRONMENTS: dict[str, Factory] = {"miniature": _miniature, "mllm": _mllm}
"""Where policies can be trained, by the name that a configuration gives; ``package.module:name`` is one of your own."""


def train(
    config_file: Path | None = None,
    *,
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    resume: bool = False,
    resume_from: str | None = None,
    overwrite: bool = False,
    bar: bool = False,
) -> dict[str, float] | None:
    """Trains a policy and saves it.

    Args:
        config_file: YAML, as docs/training.md describes; None: the defaults, or what ``output`` holds to resume.
        output: the run's folder; None: the configuration's ``output_dir``, else ``OUTPUT``.
        settings: values for :class:`score_video.rl.config.ScoreConfig`, before those of the file.
        preset: a name of :data:`score_video.rl.presets.PRESETS`, before the file's: settings for all that neither
            ``settings`` nor the file gives.
        resume: go on from the latest checkpoint in the folder; from the beginning, given a ``config_file``, where there
            is none.
        resume_from: an older checkpoint to go on from, by its name or its step; later ones, and the result of a run
            that was done, are moved into a folder ``set-aside-1`` (or 2, ...) beside it.
        overwrite: delete an earlier run's files in the folder, once this run has done a step.
        bar: draw a progress bar; otherwise lines of metrics are printed.

    Returns:
        what the evaluation at the end found, ``eval_reward`` and so on; empty without validation data. None in all
        processes but the first, and where the run that is resumed was finished: a line says so, and nothing changes.

    Raises:
        ValueError: something of the configuration is wrong, or the run that is resumed had another.
        FileExistsError: the folder is not empty, and neither ``resume`` nor ``overwrite`` is given.
        OSError: the folder cannot be written.
        Whatever is raised before the first step is done, the folder stays as it was.
    """
    _check_installed()
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback

    from score_video.commands.run_folder import BeginAfterFirstStep, RunFolder
    from score_video.commands.train_config import FILE, check_keys, make_training, read_config, with_preset
    from score_video.mllm.sharding import asked_by_accelerate
    from score_video.policy import SurprisePolicy, SurprisePolicyConfig
    from score_video.rl.progress import RewardLines
    from score_video.rl.registry import find
    from score_video.rl.trainer import ScoreTrainer

    if overwrite and (resume or resume_from is not None):
        raise ScoreError(f"give {'--resume' if resume else '--resume-from'} or --overwrite, not both")
    if config_file is None and (resume or resume_from is not None):
        if not (file := Path(output or OUTPUT) / FILE).is_file():
            raise ScoreError(f"{file.parent}: there is no run to resume: it has no {FILE} (--config begins one)")
        config_file = file
    config = read_config(config_file)
    folder = output or Path(config["training"].get("output_dir") or OUTPUT)
    config["training"] |= settings or {}
    config["preset"] = preset or config["preset"]
    config = with_preset(config)
    if asked_by_accelerate():
        if config["environment"] != "mllm":
            raise ScoreError(
                f"accelerate is configured with FSDP, but {config['environment']} has no model to share out"
            )
        config["environment_options"].setdefault("sharded", True)
    training = make_training({"disable_tqdm": not bar, **config["training"], "output_dir": str(folder)})
    try:
        make_environment = find(ENVIRONMENTS, config["environment"])
    except ValueError as error:
        raise ScoreError(f"environment: {error}") from None
    check_keys(config["policy"], _arguments(SurprisePolicyConfig), "policy")
    with RunFolder(folder, config, training, resume=resume, resume_from=resume_from, overwrite=overwrite) as run:
        if steps := run.finished_steps():
            if training.should_save:
                said = f"the run is finished ({steps} steps), and nothing was changed"
                print(f"{one_line(str(folder))}: {said}: --steps N goes on, --resume-from CHECKPOINT goes back")
            return None
        setup = make_environment(config["environment_options"], config["data"], training)
        sizes = {"token_width": setup.token_width, "question_width": setup.question_width}
        set_seed(training.seed)
        try:
            policy = SurprisePolicy(SurprisePolicyConfig(**{**sizes, **config["policy"]}))
        except (TypeError, ValueError) as error:
            raise ScoreError(f"policy: {error}") from None
        trainer = ScoreTrainer(
            policy,
            setup.environment,
            training,
            setup.train,
            setup.validation,
            callbacks=[BeginAfterFirstStep(run)],
        )
        trainer.remove_callback(PrinterCallback)
        if training.disable_tqdm:
            trainer.add_callback(RewardLines)
        return _run(trainer, run)


def _run(trainer: Any, run: RunFolder) -> dict[str, float] | None:
    """Trains, evaluates and saves. Returns the metrics, in the first process alone."""
    from score_video.commands.run_folder import LOGS, save_result

    processes = trainer.accelerator
    trainer.replaces_checkpoints = run.checkpoint is None  # those of a run that is overwritten: RunFolder removes them
    with _reporters_ended(trainer):
        with write_errors(run.folder, run.folder / LOGS):
            trainer.train(resume_from_checkpoint=None if run.checkpoint is None else str(run.checkpoint))
        if run.set_aside is not None:
            print(f"what the run had made after that checkpoint is in {one_line(str(run.set_aside))}")
        if run.begun:  # before the evaluation, which may end in a video that cannot be read
            save_result(trainer, run.folder, finished=False)
        metrics: dict[str, float] = trainer.evaluate() if trainer.eval_dataset is not None else {}
        if processes.is_main_process:
            run.begin()
            save_result(trainer, run.folder, finished=True)
    processes.wait_for_everyone()
    return metrics if processes.is_main_process else None


def leave_process_group() -> None:
    """What a process of several does last: a thread that still talks to the others when Python ends aborts it."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _reporters_ended(trainer: Any) -> Iterator[None]:
    """TensorBoard writes in a thread, which ends with this: after a failure it would make files again that
    :class:`RunFolder` has removed. Its errors are raised in the trainer too, and not to be shown twice."""
    shown = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not issubclass(arguments.exc_type, OSError):
            shown(arguments)

    def end() -> None:
        for callback in trainer.callback_handler.callbacks:
            if (writer := getattr(callback, "tb_writer", None)) is not None:
                writer.close()
                callback.tb_writer = None

    threading.excepthook = hook
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what has failed already is what is to be said
            end()
        raise
    else:
        end()
    finally:
        threading.excepthook = shown


def describe_settings() -> list[tuple[str, str, str]]:
    """(name, default, what it does) of each setting of ours."""
    _check_installed()
    from score_video.rl.config import ScoreConfig

    rows = []
    for name in vars(ScoreConfig)["__annotations__"]:
        entry = ScoreConfig.__dataclass_fields__[name]
        default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
        rows.append((name, str(default), str(entry.metadata["help"])))
    return rows


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("accelerate", "datasets", "yaml") if find_spec(name) is None]
    if missing:
        raise ScoreError(f"training needs {', '.join(missing)}: install score-video[train]")


def _arguments(of: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(of).parameters)
