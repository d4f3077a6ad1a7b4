"""The jobs of each experiment. Jobs that two experiments share are the same job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.jobs import Job
from evaluation.recipe import METHODS, METHODS_WITH_LAW, STRATEGIES, Recipe
from score_video.miniature.world import TASKS

BOTH_LAWS = ("systematic", "topk")
STATES: dict[str, dict[str, bool]] = {
    "everything": {},
    "without dX": {"use_residual": False},
    "without x": {"use_token": False},
    "without position": {"use_position": False},
}
CURRICULA = ("none", "stills first")

SAME_WHEN_COUNTED = {
    ("by_action", False): "leave_one_out",
    ("by_action", True): "leave_one_out",
    ("by_objective", False): "joint",
}
"""Strategies (and whether they divide) that are another one by definition where the policy chooses the count."""


@dataclass(frozen=True)
class Plan:
    """A recipe and the files at hand, by their fingerprints.

    Attributes:
        recipe: sizes, seeds and trainings.
        readers: by name; "shipped" is the one that nearly everything is about.
        footage: of the split that needs it; None: that split is left out.
    """

    recipe: Recipe
    readers: Mapping[str, str]
    footage: str | None

    @property
    def splits(self) -> list[str]:
        """Those that can be had."""
        return [name for name in self.recipe.test_videos if name != "footage" or self.footage is not None]

    def test(self, split: str, reader: str = "shipped", videos: int | None = None) -> dict[str, Any]:
        """What to test on."""
        count = self.recipe.test_videos[split] if videos is None else videos
        test = {"reader": self.readers[reader], "split": split, "seed": self.recipe.test_seed, "videos": count}
        return {**test, "footage": self.footage} if split == "footage" else test

    def training(self, seed: int, mixture: Mapping[str, float], **changes: Any) -> dict[str, Any]:
        """What decides a training; ``changes`` replace parts of it."""
        footage = {"footage": self.footage} if "footage" in mixture else {}
        return {
            "readers": [self.readers["shipped"]],
            "seed": seed,
            "mixture": dict(mixture),
            "train_videos": self.recipe.train_videos,
            "policy": {},
            "settings": dict(self.recipe.settings),
            **footage,
            **changes,
        }

    def policy(
        self, training: Mapping[str, Any], splits: list[str], laws: tuple[str, ...] = ("systematic",), **tags: Any
    ) -> Job:
        """A policy trained, and tested at the few retentions."""
        tests = [self.test(split) for split in splits]
        retentions = list(self.recipe.few_retentions)
        parameters = {"training": training, "tests": tests, "retentions": retentions, "laws": list(laws)}
        return Job("policy", parameters, tags)


def full(plan: Plan) -> list[Job]:
    """The reader on all tokens of every split."""
    return [Job("full", {"test": plan.test(split)}, {"split": split}) for split in plan.splits]


def methods(plan: Plan) -> list[Job]:
    """Every rival on every split."""
    return [method(plan, plan.test(split), name, {"split": split}) for split in plan.splits for name in METHODS]


def method(plan: Plan, test: Mapping[str, Any], name: str, tags: Mapping[str, Any]) -> Job:
    """One rival on one split: by all its laws, a random one with several seeds."""
    laws = ["topk", "systematic"] if name in METHODS_WITH_LAW else [None]
    seeds = list(plan.recipe.seeds) if name == "random" else [0]
    parameters = {"test": test, "method": name, "laws": laws, "seeds": seeds}
    return Job("method", {**parameters, "retentions": list(plan.recipe.retentions)}, {**tags, "method": name})


def policies(plan: Plan) -> list[Job]:
    """The policies that the recipe names, on every split, by both laws."""
    settings = {**plan.recipe.settings, **plan.recipe.policy_settings}
    return [
        Job(
            "policy",
            {
                "training": plan.training(seed, mixture, settings=settings),
                "tests": [plan.test(split) for split in plan.splits],
                "retentions": list(plan.recipe.retentions),
                "laws": list(BOTH_LAWS),
            },
            {"policy": name, "seed": seed},
        )
        for name, mixture in plan.recipe.policies.items()
        for seed in plan.recipe.seeds
    ]


def state(plan: Plan) -> list[Job]:
    """Policies that lack a part of the state."""
    split = plan.recipe.one_split
    return [
        plan.policy(plan.training(seed, {split: 1.0}, policy=changes), [split], state=name, seed=seed)
        for name, changes in STATES.items()
        for seed in plan.recipe.seeds
    ]


def question(plan: Plan) -> list[Job]:
    """Policies that see the question."""
    split, settings = plan.recipe.one_split, {**plan.recipe.settings, **plan.recipe.question_settings}
    changes = {"policy": {"question_width": len(TASKS)}, "settings": settings, "one_question": True}
    return [
        plan.policy(plan.training(seed, {split: 1.0}, **changes), [split], question="seen", seed=seed)
        for seed in plan.recipe.seeds
    ]


def curriculum(plan: Plan) -> list[Job]:
    """Pseudo-videos of stills first, against none, at equal total steps."""
    split = plan.recipe.one_split
    jobs = []
    for name, changes in plan.recipe.curriculum.items():
        settings = {**plan.recipe.settings, **changes}
        videos = settings.pop("train_videos", plan.recipe.train_videos)
        for kind in CURRICULA:
            of_kind = settings if kind == "none" else _stills_first(settings, plan.recipe.curriculum_share)
            for seed in plan.recipe.seeds:
                training = plan.training(seed, {split: 1.0}, settings=of_kind, train_videos=videos)
                jobs.append(plan.policy(training, [split], setting=name, curriculum=kind, seed=seed))
    return jobs


def _stills_first(settings: Mapping[str, Any], share: float) -> dict[str, Any]:
    if "stages" in settings:
        raise ValueError("settings of curriculum must not have stages of their own")
    steps = max(1, round(settings["max_steps"] * share))
    return {**settings, "stages": [{"name": "pseudo_video", "steps": steps}, {"name": "video"}]}


def advantages(plan: Plan) -> list[Job]:
    """Every advantage strategy with a count that the policy chooses, in short trainings."""
    recipe = plan.recipe
    return [
        _counted(
            plan,
            {
                **recipe.sweep_settings,
                "advantage": SAME_WHEN_COUNTED.get((strategy, scale), strategy),
                "scale_rewards": scale,
                "compression_weight": weight,
            },
            seed,
            recipe.sweep_videos,
            recipe.sweep_test_videos,
            [],
            {"strategy": strategy, "scale": scale, "weight": weight, "seed": seed},
        )
        for seed in recipe.seeds
        for strategy in STRATEGIES
        for scale in (False, True)
        for weight in recipe.sweep_weights
    ]


def adaptive(plan: Plan) -> list[Job]:
    """A count for each video against the same for all, at exactly equal means."""
    recipe = plan.recipe
    test_videos, retentions = recipe.test_videos[recipe.density_split], [0.05, 0.10]
    return [
        _counted(
            plan,
            recipe.adaptive_settings,
            seed,
            recipe.train_videos,
            test_videos,
            retentions,
            {"adaptive": "", "seed": seed},
        )
        for seed in recipe.seeds
    ]


def _counted(
    plan: Plan,
    settings: Mapping[str, Any],
    seed: int,
    train_videos: int,
    test_videos: int,
    retentions: list[float],
    tags: Mapping[str, Any],
) -> Job:
    settings = {"law": "counted", "compression": "linear", **settings}
    split = plan.recipe.density_split
    training = plan.training(seed, {split: 1.0}, settings=settings, train_videos=train_videos)
    test = plan.test(split, videos=test_videos)
    return Job("counted", {"training": training, "test": test, "retentions": retentions}, tags)


def rot(plan: Plan) -> list[Job]:
    """Full against compressed on long videos: nothing that is not tested elsewhere."""
    if "long" not in plan.splits:
        return []
    chosen = [job for job in policies(plan) if job.tags["policy"] == next(iter(plan.recipe.policies))]
    return [job for job in full(plan) if job.tags["split"] == "long"] + chosen


def fidelity(plan: Plan) -> list[Job]:
    """Training without labels against training with them."""
    split = plan.recipe.one_split
    return [
        plan.policy(
            plan.training(seed, {split: 1.0}, settings={**plan.recipe.settings, "reward": reward}),
            [split],
            reward=reward,
            seed=seed,
        )
        for reward in ("log_prob", "fidelity")
        for seed in plan.recipe.seeds
    ]


def relative(plan: Plan) -> list[Job]:
    """Policies of the tower-independent state, on towers that they never saw, beside everything else there."""
    recipe = plan.recipe
    if missing_towers(plan):
        return []
    mixture, splits = next(iter(recipe.policies.values())), list(recipe.tower_splits)
    tests = [plan.test(split, tower) for tower in recipe.test_towers for split in splits]
    rest = {"retentions": list(recipe.retentions), "laws": list(BOTH_LAWS)}
    towers = [plan.readers[tower] for tower in recipe.train_towers]
    settings = {**recipe.settings, **recipe.tower_settings}
    jobs = []
    for seed in recipe.seeds:
        training = plan.training(seed, mixture, readers=towers, settings=settings, policy={"state": "relative"})
        jobs.append(
            Job("policy", {"training": training, "tests": tests, **rest}, {"tower": "never seen", "seed": seed})
        )
    for tower in recipe.test_towers:
        for seed in recipe.own_tower_seeds:
            training = plan.training(seed, mixture, readers=[plan.readers[tower]], settings=settings)
            own = {"training": training, "tests": [plan.test(split, tower) for split in splits], **rest}
            jobs.append(Job("policy", own, {"tower": tower, "seed": seed}))
        for split in splits:
            tags = {"tower": tower, "split": split}
            jobs.append(Job("full", {"test": plan.test(split, tower)}, tags))
            jobs += [method(plan, plan.test(split, tower), name, tags) for name in recipe.tower_methods]
    return jobs


def missing_towers(plan: Plan) -> list[str]:
    """Readers that the recipe names and that are not there."""
    named = (*plan.recipe.train_towers, *plan.recipe.test_towers)
    return [name for name in named if name not in plan.readers]


EXPERIMENTS: dict[str, Callable[[Plan], list[Job]]] = {
    "full": full,
    "methods": methods,
    "policy": policies,
    "state": state,
    "question": question,
    "curriculum": curriculum,
    "advantages": advantages,
    "adaptive": adaptive,
    "rot": rot,
    "fidelity": fidelity,
    "relative": relative,
}
