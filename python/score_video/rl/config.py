"""The configuration of a training."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any

import torch
from transformers import TrainingArguments

from score_video.checks import check_integer, is_fraction, is_number
from score_video.compressor import SELECTIONS
from score_video.errors import ScoreError
from score_video.renamed import renamed_fields
from score_video.rl.advantages import ADVANTAGES
from score_video.rl.curriculum import Stage, parse_stages
from score_video.rl.objective import LOSS_TYPES
from score_video.rl.presets import paper_training
from score_video.rl.registry import find
from score_video.rl.rewards import COMBINATIONS, COMPRESSIONS, REWARDS
from score_video.rl.sampling import SAMPLINGS

RENAMED = {"law": "sampling", "compression": "compression_reward"}
"""What settings were called in 0.1, and are called now: the former names are taken for one release, with a warning."""

DEFAULT_EPSILON = 0.2  # PPO's (arXiv 1707.06347)

_SMALL = (
    "they are small, and every process holds all of one (the frozen model is shared out by sharded: true of the "
    "environment mllm)"
)


def _reporters() -> list[str]:
    return ["tensorboard"] if find_spec("tensorboard") else []


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@renamed_fields(**RENAMED)
@dataclass
class ScoreConfig(TrainingArguments):
    """What :class:`score_video.rl.trainer.ScoreTrainer` does, beside what every Trainer does.

    Names are TRL's where they mean the same. Defaults come from training in the miniature, for Trainer's own arguments
    too. SCORE's hyperparameters are not published.

    Raises:
        ValueError: a value is out of range, a name is not known, or two values contradict each other.
    """

    num_generations: int = _setting(8, "G: how many subsets of each video are drawn and compared. At least 2.")
    num_iterations: int = _setting(1, "Optimiser steps that a rollout is used for. Above 1, ratios are clipped.")
    epsilon: float | None = _setting(
        None,
        "Ratios are clipped at 1 - epsilon and 1 + epsilon. Only with num_iterations above 1; then 0.2 if not given.",
    )
    sampling: str = _setting("exact", f"How subsets are drawn: {', '.join(SAMPLINGS)}, or package.module:name.")
    retention: float = _setting(
        0.05, "Fraction of the tokens kept in training, in (0, 1]. Not used where the sampling chooses the count."
    )
    eval_retention: float | None = _setting(
        None,
        "Fraction that the trained policy keeps. If not given: retention, or where the sampling chooses the count, the "
        "policy's own expected count.",
    )
    reward: str = _setting("log_prob", f"Task reward: {', '.join(REWARDS)}, or package.module:name.")
    advantage: str = _setting("leave_one_out", f"Advantage strategy: {', '.join(ADVANTAGES)}, or package.module:name.")
    scale_rewards: bool = _setting(False, "Divide advantages by the standard deviation of the group.")
    compression_reward: str | None = _setting(
        None, f"Reward for keeping few: {', '.join(COMPRESSIONS)}, or package.module:name. Not with sampling exact."
    )
    compression_weight: float = _setting(1.0, "Weight of the compression reward beside the task reward.")
    combination: str = _setting(
        "sum", f"How the two make one reward: {', '.join(COMBINATIONS)}, or package.module:name."
    )
    target_retention: float | None = _setting(
        None, "Fraction kept at which the compression reward stops asking for less; retention if not given."
    )
    loss_type: str = _setting(
        "sum", "A sample's log-probabilities are added up (sum), or their mean over its decisions is taken (mean)."
    )
    selection: str = _setting("diverse", f"How the trained policy's logits choose tokens: {', '.join(SELECTIONS)}.")
    stages: list[dict[str, Any]] | None = field(
        default=None,
        metadata={
            "help": "The curriculum: a list of {name, steps, retention, data, options}. None: videos throughout."
        },
    )

    learning_rate: float = _setting(3e-3, "Learning rate of Adam at the start.")
    lr_scheduler_type: str = _setting("linear", "How the learning rate changes: constant, linear, cosine, ...")
    weight_decay: float = _setting(0.0, "Weight decay.")
    max_grad_norm: float = _setting(1.0, "Gradients longer than this are shortened to it; 0: none are.")
    per_device_train_batch_size: int = _setting(16, "Videos of a step on each device.")
    per_device_eval_batch_size: int = _setting(16, "Videos evaluated at a time on each device.")
    max_steps: int = _setting(300, "Optimiser steps. Epochs are not counted.")
    logging_steps: float = _setting(10, "Steps between two lines of metrics.")
    logging_nan_inf_filter: bool = _setting(False, "Whether a loss that is NaN is left out of the logs.")
    save_steps: float = _setting(50, "Steps between two checkpoints.")
    save_total_limit: int | None = _setting(2, "Checkpoints to keep; None: all.")
    report_to: str | list[str] | None = field(
        default_factory=_reporters, metadata={"help": "Where metrics go: tensorboard, wandb, ..., or none."}
    )
    skip_broken: bool = _setting(
        False,
        "Take other examples instead of those whose video or image cannot be read, with a warning and a count; "
        "otherwise the first of them ends the run.",
    )
    remove_unused_columns: bool = _setting(False, "Must be false: the environment's columns are not the model's.")
    dataloader_pin_memory: bool = _setting(False, "Whether examples are loaded into pinned memory.")
    train_sampling_strategy: str = _setting("sequential", "Must be sequential: the curriculum shuffles.")
    use_cpu: bool = field(
        default_factory=lambda: not torch.accelerator.is_available(),
        metadata={"help": "Train on the CPU; so it is where there is nothing else."},  # else torchrun's are not joined
    )
    ddp_find_unused_parameters: bool | None = _setting(False, "Whether parameters may be without a gradient.")

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_strategies()
        self._check_trainer()
        self.parsed_stages()
        if self.epsilon is None and self.num_iterations > 1:
            self.epsilon = DEFAULT_EPSILON
        super().__post_init__()  # type: ignore[no-untyped-call]

    @classmethod
    def paper(cls, output_dir: str | None = None, max_steps: int = 300, **settings: Any) -> ScoreConfig:
        """The paper's recipe (:func:`score_video.rl.presets.paper_training`), with some settings given otherwise.

        Its policy is ``SurprisePolicyConfig(token_width=D, **PAPER_POLICY)`` of :mod:`score_video.rl.presets`.

        Args:
            output_dir, max_steps, settings: as for the class.
        """
        return cls(output_dir, max_steps=max_steps, **{**paper_training(max_steps), **settings})

    def parsed_stages(self) -> tuple[Stage, ...]:
        """The stages; one of videos where no others are given."""
        return parse_stages([{"name": "video"}] if self.stages is None else self.stages, self.num_iterations)

    def _check_numbers(self) -> None:
        for name, least in (("num_generations", 2), ("num_iterations", 1), ("max_steps", 1)):
            check_integer(name, getattr(self, name), least)
        for name in ("retention", "eval_retention", "target_retention"):
            value = getattr(self, name)
            if value is None and name != "retention":
                continue
            if not is_fraction(value):
                raise ScoreError(f"{name} must be a number in (0, 1], got {value!r}")
        if self.save_total_limit is not None and self.save_total_limit < 1:
            raise ScoreError(f"save_total_limit must be at least 1, or None, got {self.save_total_limit!r}")
        if self.num_iterations == 1 and self.epsilon is not None:
            raise ScoreError(
                f"epsilon must be None with num_iterations 1, where every ratio is 1, got {self.epsilon!r}"
            )
        if self.epsilon is not None and not (is_number(self.epsilon) and 0 < self.epsilon < 1):
            raise ScoreError(f"epsilon must be a number between 0 and 1, got {self.epsilon!r}")
        weight = self.compression_weight
        if not is_number(weight) or not 0 < weight < float("inf"):
            raise ScoreError(f"compression_weight must be a number above 0, got {weight!r}")

    def _check_strategies(self) -> None:
        for name, registry in (("sampling", SAMPLINGS), ("reward", REWARDS), ("advantage", ADVANTAGES)):
            _check_name(name, getattr(self, name), registry)
        if self.compression_reward is not None:
            _check_name("compression_reward", self.compression_reward, COMPRESSIONS)
        _check_name("combination", self.combination, COMBINATIONS)
        for name, choices in (("loss_type", LOSS_TYPES), ("selection", SELECTIONS)):
            if getattr(self, name) not in choices:
                raise ScoreError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        self._check_combination()
        factors = tuple(find(SAMPLINGS, self.sampling).factors)
        if self.compression_reward is not None and factors == ("subset",):  # of a count that is given
            raise ScoreError(
                f"compression_reward must be None with sampling {self.sampling}, where all samples keep as many, "
                f"got {self.compression_reward!r} (take sampling counted or bernoulli)"
            )
        if self.advantage == "by_factor" and "subset" not in factors:
            raise ScoreError(f"advantage by_factor must have sampling counted or exact, got {self.sampling}")

    def _check_combination(self) -> None:
        """What would leave a setting without effect."""
        if self.combination != "sum" and self.compression_reward is None:
            raise ScoreError(f"combination {self.combination} must have a compression_reward to combine, got None")
        if self.combination != "sum" and self.advantage in ("by_objective", "by_outcome"):
            raise ScoreError(
                f"advantage {self.advantage} must have combination sum: it takes the two rewards apart, "
                f"got {self.combination!r}"
            )
        if self.advantage == "by_baseline" and self.reward in ("log_prob", "correct", "fidelity"):
            raise ScoreError(
                "advantage by_baseline must have a reward that is above 0 where a sample beats the full model, as "
                f"delta_ce is, got {self.reward!r}"
            )

    def _check_trainer(self) -> None:
        """What Trainer offers and this training cannot be resumed, or has no meaning, with."""
        fixed = {
            "train_sampling_strategy": "sequential",
            "remove_unused_columns": False,
            "ignore_data_skip": False,
            "save_only_model": False,
            "auto_find_batch_size": False,
        }
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ScoreError(f"{name} must be {value!r} here, got {getattr(self, name)!r}")
        self._check_reporters()
        for name in ("deepspeed", "fsdp"):
            if getattr(self, name):
                raise ScoreError(f"{name} is not for policies: {_SMALL}")
        from accelerate.utils import parse_flag_from_env  # type: ignore[import-untyped]

        if parse_flag_from_env("ACCELERATE_USE_FSDP"):  # accelerate launch
            raise ScoreError(f"accelerate's FSDP is not for policies: {_SMALL}")

    def _check_reporters(self) -> None:
        """transformers finds out that one is missing only when it needs it, and says so in its own type."""
        from transformers.integrations import integration_utils as integrations

        if self.report_to is None:
            self.report_to = "none"
        names = [self.report_to] if isinstance(self.report_to, str) else self.report_to
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ScoreError(f"report_to must be none, all, or names of reporters, got {self.report_to!r}")
        if names in (["none"], ["all"]):
            return
        here = [*integrations.get_available_reporting_integrations()]  # type: ignore[no-untyped-call]
        here += ["flyte"] if integrations.is_flytekit_available() else []  # type: ignore[no-untyped-call]
        here += ["azure_ml"] if integrations.is_azureml_available() else []  # type: ignore[no-untyped-call]
        known = integrations.INTEGRATION_TO_CALLBACK
        for name in names:
            if name not in known:
                raise ScoreError(f"report_to must be none, all, or some of {', '.join(known)}, got {name!r}")
            if name not in here:
                raise ScoreError(
                    f"report_to: what {name} needs is not installed; none is always there"
                    + (f", and here are {', '.join(here)}" if here else "")
                )


def _check_name(name: str, value: object, registry: dict[str, Any]) -> None:
    if not isinstance(value, str):
        raise ScoreError(f"{name} must be a string, got {value!r}")
    try:
        find(registry, value)
    except ValueError as error:
        raise ScoreError(f"{name}: {error}") from None


FIELDS = tuple(entry.name for entry in fields(ScoreConfig) if entry.init)
"""The names of all settings."""
