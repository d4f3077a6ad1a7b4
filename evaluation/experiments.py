"""The jobs of each experiment. Jobs that two experiments share are the same job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.jobs import Job
from evaluation.recipe import METHODS, SCORES, STRATEGIES, Recipe
from score_video.miniature.world import TASKS

BOTH = ("systematic", "topk")
STATES: dict[str, dict[str, bool]] = {
    "everything": {},
    "without dX": {"use_residual": False},
    "without x": {"use_token": False},
    "without position": {"use_position": False},
}
CURRICULA = ("none", "stills first")
REWARDS = ("log_prob", "fidelity")

SAME_WHEN_COUNTED = {
    ("by_action", False): "leave_one_out",
    ("by_action", True): "leave_one_out",
    ("by_objective", False): "joint",
}
"""Strategies (and whether they divide) that are another one by definition where the policy chooses the count."""


@dataclass(frozen=True)
class Plan:
    """What there is to run.

    Attributes:
        recipe: sizes, seeds and trainings.
        readers: fingerprints by name; "shipped" is the one that nearly everything is about.
        code: hash of the code that runs it.
    """

    recipe: Recipe
    readers: Mapping[str, str]
    code: str

    def test(self, split: str, reader: str = "shipped", videos: int | None = None) -> dict[str, Any]:
        """What to test on."""
        count = self.recipe.test_videos[split] if videos is None else videos
        test = {"reader": self.readers[reader], "split": split, "seed": self.recipe.test_seed, "videos": count}
        if split == "footage":
            assert self.recipe.footage is not None, "a recipe that tests the split footage names a clip"
            test["footage"] = self.recipe.footage.fingerprint
        return test

    def training(self, seed: int, mixture: Mapping[str, float], **changes: Any) -> dict[str, Any]:
        """What decides a training; ``changes`` replace parts of it."""
        return {
            "readers": [self.readers["shipped"]],
            "seed": seed,
            "mixture": dict(mixture),
            "train_videos": self.recipe.train_videos,
            "policy": {},
            "settings": dict(self.recipe.settings),
            **changes,
        }

    def full(self, test: Mapping[str, Any], **tags: Any) -> Job:
        """The reader on all tokens."""
        return Job("full", {"test": test}, self.code, tags)

    def method(self, test: Mapping[str, Any], name: str, **tags: Any) -> Job:
        """A method without training: by either selection where it is a score, with several seeds where it draws."""
        parameters = {
            "test": test,
            "method": name,
            "selections": ["topk", "systematic"] if name in SCORES else [None],
            "seeds": list(self.recipe.seeds) if name == "random" else [0],
            "retentions": list(self.recipe.retentions),
        }
        return Job("method", parameters, self.code, {**tags, "method": name})

    def policy(self, training: Mapping[str, Any], tests: Sequence[Mapping[str, Any]], **tags: Any) -> Job:
        """A policy trained, and tested by both selections at every retention."""
        rest = {"tests": list(tests), "retentions": list(self.recipe.retentions), "selections": list(BOTH)}
        return Job("policy", {"training": training, **rest}, self.code, tags)

    def ablation(self, changes: Mapping[str, Any], **tags: Any) -> list[Job]:
        """Policies of every seed, trained and tested on one split; ``changes`` as :meth:`training` takes them."""
        split, jobs = self.recipe.one_split, []
        for seed in self.recipe.seeds:
            parameters = {
                "training": self.training(seed, {split: 1.0}, **changes),
                "tests": [self.test(split)],
                "retentions": list(self.recipe.few_retentions),
                "selections": ["systematic"],
            }
            jobs.append(Job("policy", parameters, self.code, {**tags, "seed": seed}))
        return jobs

    def counted(
        self,
        settings: Mapping[str, Any],
        videos: tuple[int, int],
        retentions: Sequence[float],
        **tags: Any,
    ) -> Job:
        """A policy that chooses the count; ``videos`` to learn from and to be tested on."""
        split = self.recipe.density_split
        settings = {"law": "counted", "compression": "linear", **settings}
        training = self.training(tags["seed"], {split: 1.0}, settings=settings, train_videos=videos[0])
        test = self.test(split, videos=videos[1])
        parameters = {"training": training, "test": test, "retentions": list(retentions)}
        return Job("counted", parameters, self.code, tags)


def full(plan: Plan) -> list[Job]:
    """The reader on all tokens of every split."""
    return [plan.full(plan.test(split), split=split) for split in plan.recipe.test_videos]


def methods(plan: Plan) -> list[Job]:
    """Every method without training on every split."""
    splits = plan.recipe.test_videos
    return [plan.method(plan.test(split), name, split=split) for split in splits for name in METHODS]


def policies(plan: Plan) -> list[Job]:
    """The policies that the recipe names, on every split."""
    settings = {**plan.recipe.settings, **plan.recipe.policy_settings}
    tests = [plan.test(split) for split in plan.recipe.test_videos]
    return [
        plan.policy(plan.training(seed, mixture, settings=settings), tests, policy=name, seed=seed)
        for name, mixture in plan.recipe.policies.items()
        for seed in plan.recipe.seeds
    ]


def state(plan: Plan) -> list[Job]:
    """Policies that lack a part of the state."""
    return [job for name, changes in STATES.items() for job in plan.ablation({"policy": changes}, state=name)]


def question(plan: Plan) -> list[Job]:
    """Policies that see the question; an example is one question then."""
    return plan.ablation({"policy": {"question_width": len(TASKS)}, "one_question": True}, question="seen")


def curriculum(plan: Plan) -> list[Job]:
    """Pseudo-videos of stills first, against none, at equal total steps."""
    jobs = []
    for name, changes in plan.recipe.curriculum.items():
        settings = {**plan.recipe.settings, **changes}
        steps = max(1, round(settings["max_steps"] * plan.recipe.curriculum_share))
        stages = {"stages": [{"name": "pseudo_video", "steps": steps}, {"name": "video"}]}
        for kind in CURRICULA:
            of_kind = settings if kind == "none" else {**settings, **stages}
            jobs += plan.ablation({"settings": of_kind}, setting=name, curriculum=kind)
    return jobs


def advantages(plan: Plan) -> list[Job]:
    """Every advantage strategy with a count that the policy chooses, in short trainings."""
    recipe = plan.recipe
    jobs = []
    for seed in recipe.seeds:
        for strategy in STRATEGIES:
            for scale in (False, True):
                for weight in recipe.sweep_weights:
                    of = {"advantage": SAME_WHEN_COUNTED.get((strategy, scale), strategy), "scale_rewards": scale}
                    settings = {**recipe.sweep_settings, **of, "compression_weight": weight}
                    videos = recipe.sweep_videos, recipe.sweep_test_videos
                    tags = {"strategy": strategy, "scale": scale, "weight": weight, "seed": seed}
                    jobs.append(plan.counted(settings, videos, [], **tags))
    return jobs


def adaptive(plan: Plan) -> list[Job]:
    """A count for each video against the same for all, at exactly equal means."""
    recipe = plan.recipe
    videos = recipe.train_videos, recipe.test_videos[recipe.density_split]
    return [plan.counted(recipe.adaptive_settings, videos, [0.05, 0.10], seed=seed) for seed in recipe.seeds]


def context_rot(plan: Plan) -> list[Job]:
    """Full against compressed on long videos: nothing that is not tested elsewhere."""
    main = next(iter(plan.recipe.policies))
    of_main = [job for job in policies(plan) if job.tags["policy"] == main]
    return [plan.full(plan.test("long"), split="long"), *of_main]


def fidelity(plan: Plan) -> list[Job]:
    """Training without labels against training with them."""
    settings = plan.recipe.settings
    return [job for name in REWARDS for job in plan.ablation({"settings": {**settings, "reward": name}}, reward=name)]


def towers(plan: Plan) -> list[Job]:
    """Policies of the tower-independent state, on towers that they never saw, beside everything else there."""
    recipe, readers = plan.recipe, plan.readers
    mixture, splits = next(iter(recipe.policies.values())), recipe.tower_splits
    settings = {**recipe.settings, **recipe.tower_settings}
    several = {"readers": [readers[tower] for tower in recipe.train_towers], "policy": {"state": "relative"}}
    tests = {tower: [plan.test(split, tower) for split in splits] for tower in recipe.test_towers}
    every = [test for of_tower in tests.values() for test in of_tower]
    jobs = []
    for seed in recipe.seeds:
        training = plan.training(seed, mixture, settings=settings, **several)
        jobs.append(plan.policy(training, every, tower="never seen", seed=seed))
    for tower, of_tower in tests.items():
        for seed in recipe.own_tower_seeds:
            training = plan.training(seed, mixture, settings=settings, readers=[readers[tower]])
            jobs.append(plan.policy(training, of_tower, tower=tower, seed=seed))
        for test in of_tower:
            tags = {"tower": tower, "split": test["split"]}
            jobs += [plan.full(test, **tags), *(plan.method(test, name, **tags) for name in recipe.tower_methods)]
    return jobs


EXPERIMENTS: dict[str, Callable[[Plan], list[Job]]] = {
    "full": full,
    "methods": methods,
    "policy": policies,
    "state": state,
    "question": question,
    "curriculum": curriculum,
    "advantages": advantages,
    "adaptive": adaptive,
    "context-rot": context_rot,
    "fidelity": fidelity,
    "towers": towers,
}
