"""The jobs of each experiment. Jobs that two experiments share are the same job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from evaluation.jobs import Job
from evaluation.recipe import METHODS, SCORES, STRATEGIES, Recipe
from score_video.miniature.world import TASKS
from score_video.rl.presets import PAPER_POLICY, paper_training

EXPERIMENTS = (
    *("full", "methods", "policy", "state", "question", "curriculum"),
    *("advantages", "adaptive", "context-rot", "fidelity", "towers", "paper"),
)
Tests = Sequence[Mapping[str, Any]]
Changes = Mapping[str, Any]
STATES: dict[str, dict[str, bool]] = {
    "everything": {},
    "without dX": {"use_residual": False},
    "without x": {"use_token": False},
    "without position": {"use_position": False},
}
_ADDED = {"combination": "sum", "advantage": "leave_one_out"}
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "the paper's": ({}, None),
    "exactly k tokens": ({"sampling": "exact", "retention": 0.05, "compression_reward": None, **_ADDED}, None),
    "log_prob and a hinged sparsity, added": ({"reward": "log_prob", "compression_reward": "hinged", **_ADDED}, None),
    "leave_one_out": ({"advantage": "leave_one_out"}, None),
    "by_outcome, sparsity added": ({"combination": "sum", "advantage": "by_outcome"}, None),
    "by_objective, sparsity added": ({"combination": "sum", "advantage": "by_objective"}, None),
    "log-probabilities added up": ({"loss_type": "sum"}, None),
    "size of the change, position, dX of 0 in a first frame": ({}, {}),
    "no curriculum": ({"stages": None}, None),
}
"""The paper's recipe, and with one piece of another kind at a time: changes of its training, and its policy's settings
where they are others. What a piece cannot go with changes too: samples of one size have no sparsity to be rewarded."""
OURS = "ours"

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

    def policies(
        self, mixture: Mapping[str, float], tests: Tests, changes: Changes, *, few: bool = False, **tags: Any
    ) -> list[Job]:
        """Policies of every seed, tested by both selections at every retention; or at few, by systematic selection.

        Args:
            mixture: shares of the splits to learn from.
            tests: what to test on, of :meth:`test`.
            changes: of :meth:`training`; ``seeds``, where only those are wanted.
        """
        changes = dict(changes)
        how = {
            "tests": list(tests),
            "retentions": list(self.recipe.few_retentions if few else self.recipe.retentions),
            "selections": ["systematic"] if few else ["systematic", "topk"],
        }
        return [
            Job(
                "policy",
                {"training": self.training(seed, mixture, **changes), **how},
                self.code,
                {**tags, "seed": seed},
            )
            for seed in changes.pop("seeds", self.recipe.seeds)
        ]

    def ablation(self, changes: Changes, **tags: Any) -> list[Job]:
        """Policies trained and tested on one split."""
        split = self.recipe.one_split
        return self.policies({split: 1.0}, [self.test(split)], changes, few=True, **tags)

    def counted(
        self, settings: Mapping[str, Any], videos: tuple[int, int], retentions: Sequence[float], **tags: Any
    ) -> Job:
        """A policy that chooses the count; ``videos`` to learn from and to be tested on."""
        split = self.recipe.density_split
        settings = {"sampling": "counted", "compression_reward": "linear", **settings}
        training = self.training(tags["seed"], {split: 1.0}, settings=settings, train_videos=videos[0])
        test = self.test(split, videos=videos[1])
        return Job("counted", {"training": training, "test": test, "retentions": list(retentions)}, self.code, tags)


def plan_experiments(plan: Plan) -> dict[str, list[Job]]:
    """The jobs of each of ``EXPERIMENTS``."""
    recipe, splits = plan.recipe, plan.recipe.test_videos
    tests = {split: plan.test(split) for split in splits}
    main = {"settings": {**recipe.settings, **recipe.policy_settings}}
    policies = [
        job
        for name, mixture in recipe.policies.items()
        for job in plan.policies(mixture, list(tests.values()), main, policy=name)
    ]
    rewards = {name: {"settings": {**recipe.settings, "reward": name}} for name in REWARDS}
    sees = {"policy": {"question_width": len(TASKS)}, "one_question": True}  # an example is one question then
    adaptive = recipe.adaptive_settings, (recipe.train_videos, splits[recipe.density_split]), (0.05, 0.10)
    jobs = {
        "full": [plan.full(test, split=split) for split, test in tests.items()],
        "methods": [plan.method(test, name, split=split) for split, test in tests.items() for name in METHODS],
        "policy": policies,
        "state": [job for name, of in STATES.items() for job in plan.ablation({"policy": of}, state=name)],
        "question": plan.ablation(sees, question="seen"),
        "curriculum": _curriculum(plan),
        "advantages": _advantages(plan),
        "adaptive": [plan.counted(*adaptive, seed=seed) for seed in recipe.seeds],
        # nothing that is not tested elsewhere
        "context-rot": [
            plan.full(tests["long"], split="long"),
            *(job for job in policies if job.tags["policy"] == next(iter(recipe.policies))),
        ],
        "fidelity": [job for name, changes in rewards.items() for job in plan.ablation(changes, reward=name)],
        "towers": _towers(plan),
        "paper": _paper(plan),
    }
    assert tuple(jobs) == EXPERIMENTS
    return jobs


def _curriculum(plan: Plan) -> list[Job]:
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


def _advantages(plan: Plan) -> list[Job]:
    """Every advantage strategy with a count that the policy chooses, in short trainings."""
    recipe, jobs = plan.recipe, []
    for seed, strategy, scale, weight in product(recipe.seeds, STRATEGIES, (False, True), recipe.sweep_weights):
        of = {"advantage": SAME_WHEN_COUNTED.get((strategy, scale), strategy), "scale_rewards": scale}
        settings = {**recipe.sweep_settings, **of, "compression_weight": weight}
        tags = {"strategy": strategy, "scale": scale, "weight": weight, "seed": seed}
        jobs.append(plan.counted(settings, (recipe.sweep_videos, recipe.sweep_test_videos), (), **tags))
    return jobs


def _paper(plan: Plan) -> list[Job]:
    """The paper's recipe, with one piece exchanged at a time, and ours: as many steps, videos and samples each."""
    steps = plan.recipe.paper_settings["max_steps"]
    tests = [plan.test(plan.recipe.one_split)]

    def trained(name: str, settings: Changes, policy: Changes) -> list[Job]:
        changes = {"settings": {**settings, **plan.recipe.paper_settings}, "policy": dict(policy)}
        return plan.policies({plan.recipe.one_split: 1.0}, tests, changes, recipe=name)

    jobs = []
    for name, (settings, policy) in RECIPES.items():
        jobs += trained(name, {**paper_training(steps), **settings}, PAPER_POLICY if policy is None else policy)
    return jobs + trained(OURS, {"retention": plan.recipe.settings["retention"]}, {})


def _towers(plan: Plan) -> list[Job]:
    """Policies of the tower-independent state, on towers that they never saw, beside everything else there."""
    recipe, readers = plan.recipe, plan.readers
    mixture, settings = next(iter(recipe.policies.values())), {**recipe.settings, **recipe.tower_settings}
    tests = {tower: [plan.test(split, tower) for split in recipe.tower_splits] for tower in recipe.test_towers}
    every = [test for of_tower in tests.values() for test in of_tower]
    several = {"readers": [readers[tower] for tower in recipe.train_towers], "policy": {"state": "relative"}}
    jobs = plan.policies(mixture, every, {"settings": settings, **several}, tower="never seen")
    for tower, of_tower in tests.items():
        own = {"settings": settings, "readers": [readers[tower]], "seeds": recipe.own_tower_seeds}
        jobs += plan.policies(mixture, of_tower, own, tower=tower)
        for test in of_tower:
            tags = {"tower": tower, "split": test["split"]}
            jobs += [plan.full(test, **tags), *(plan.method(test, name, **tags) for name in recipe.tower_methods)]
    return jobs
