"""The jobs of each experiment of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from evaluation.jobs import Job, StudyError
from score_video.files import sha256_of
from score_video.methods import IndexMethod, find_method
from score_video.miniature.train_policy import fingerprint
from score_video.policy import storage
from score_video.policy.pretrained import PRETRAINED
from score_video.rl.presets import PRESETS

Recipe = Mapping[str, Any]
Group = Mapping[str, Any]
"""One entry of an experiment in a recipe."""

SAME_WHEN_COUNTED = {
    ("by_action", False): "leave_one_out",
    ("by_action", True): "leave_one_out",
    ("by_objective", False): "joint",
}
"""Strategies (and whether they divide) that are another one by definition where the policy chooses the count."""


SELECTIONS = ("diverse", "systematic", "topk")
"""By which logits and scores are tested; the first is what a policy is deployed with."""


def load_recipe(world: str = "miniature", quick: bool = False) -> Recipe:
    """What is run in a world, "miniature" or "composite"; ``quick``: everything once and tiny."""
    text = Path(__file__).with_name(f"{world}.yaml").read_text(encoding="utf-8")
    recipe: dict[str, Any] = yaml.safe_load(text)
    return {**recipe, **recipe["quick"]} if quick else recipe


def package_policy() -> str:
    """The method that is the policy of the package, by its weights: others are another method."""
    return fingerprint("pretrained", sha256_of(PRETRAINED / storage.WEIGHTS))


def media_fingerprint(recipe: Recipe) -> str:
    """How parameters name the clip or the features."""
    return fingerprint(Path(recipe["media"]["name"]).stem, recipe["media"]["identity"])


@dataclass(frozen=True)
class Plan:
    """What there is to run.

    Attributes:
        recipe: what miniature.yaml or composite.yaml holds.
        readers: fingerprints by name; "shipped" is the one that nearly everything is about.
        code: hash of the code that runs it.
    """

    recipe: Recipe
    readers: Mapping[str, str]
    code: str

    @cached_property
    def experiments(self) -> dict[str, list[Job]]:
        """The jobs of each. Raises StudyError for a reader that is not there."""
        return {
            name: [job for group in groups for job in self.jobs(group)]
            for name, groups in self.recipe["experiments"].items()
        }

    def jobs_of(self, names: Iterable[str]) -> dict[str, Job]:
        """The jobs of these experiments, by key: each once."""
        return {job.key: job for name in names for job in self.experiments[name]}

    def jobs(self, group: Group) -> Iterator[Job]:
        """The jobs of a group."""
        if group["jobs"] in ("policy", "counted"):
            yield from self._policies(group)
            return
        for tags, test in self._tests(group):
            if group["jobs"] == "full":
                yield Job("full", {"test": test}, self.code, tags)
            for name in group.get("methods", ()):
                # by either selection where it is a score, with several seeds where it draws
                own_rule = name == "oracle" or (name != "pretrained" and isinstance(find_method(name), IndexMethod))
                how = {
                    "method": package_policy() if name == "pretrained" else name,
                    "selections": [None] if own_rule else group.get("selections", list(SELECTIONS)),
                    "seeds": self.recipe["seeds"] if name == "random" else [0],
                    "retentions": self.recipe["retentions"],
                }
                yield Job("method", {"test": test, **how}, self.code, {**tags, "method": name})

    def _reader(self, name: str) -> str:
        if name not in self.readers:
            raise StudyError(f"there is no reader {name} in evaluation/readers (make.sh there makes it)")
        return self.readers[name]

    def _media(self, splits: Iterable[str]) -> dict[str, str]:
        """What a world needs beside the reader for any of these splits, as parameters name it."""
        media = self.recipe["media"]
        return {} if set(splits).isdisjoint(media["splits"]) else {media["kind"]: media_fingerprint(self.recipe)}

    def _tests(self, group: Group) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Tags, and what to test on, for each reader and split."""
        splits = group.get("splits", [self.recipe["one_split"]])
        for reader, split in product(group.get("test_readers", ["shipped"]), splits):
            most = self.recipe["test_videos"][split]
            test = {
                "environment": group.get("environment", self.recipe["world"]),
                "reader": self._reader(reader),
                "split": split,
                "seed": self.recipe["test_seed"],
                "videos": min(most, group.get("test_videos", most)),
            }
            tags = {} if reader == "shipped" else {"tower": reader}
            yield tags | {"split": split}, test | self._media([split])

    def _policies(self, group: Group) -> Iterator[Job]:
        """Policies of every arm and seed."""
        few, tests = group.get("few", False), [test for _, test in self._tests(group)]
        retentions = group.get("retentions", self.recipe["few_retentions" if few else "retentions"])
        selections = group.get("selections", list(SELECTIONS[:1] if few else SELECTIONS))
        for (tags, arm), seed in product(_arms(group), group.get("seeds", self.recipe["seeds"])):
            how: dict[str, Any] = {"training": self._training(group, arm, seed), "retentions": retentions}
            if group["jobs"] == "policy":
                how |= {"tests": tests, "selections": arm.get("selections", selections)}
            else:
                (how["test"],) = tests
            yield Job(group["jobs"], how, self.code, {**group.get("tags", {}), **tags, "seed": seed})

    def _training(self, group: Group, arm: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """What decides a training: the recipe of :func:`score_video.miniature.train_policy.train_policy`."""
        most = self.recipe["train_videos"]
        settings = {**group["settings"], **arm.get("settings", {}), **self.recipe.get("override", {})}
        policy: Mapping[str, Any] = {}
        if "preset" in group:
            make_settings, policy = PRESETS[group["preset"]]
            settings = {**make_settings(settings["max_steps"]), **settings}
        if group["jobs"] == "counted":
            settings = {"sampling": "counted", "compression_reward": "linear", **settings}
        if settings.get("stages"):
            settings["stages"] = [_with_steps(stage, settings["max_steps"]) for stage in settings["stages"]]
        mixture = group.get("mixture", dict.fromkeys(group.get("splits", [self.recipe["one_split"]]), 1.0))
        training = {
            "environment": group.get("environment", self.recipe["world"]),
            "readers": [self._reader(name) for name in arm.get("readers", ["shipped"])],
            "seed": seed,
            "mixture": mixture,
            "train_videos": min(most, group.get("train_videos", most)),
            "policy": dict(arm.get("policy", policy)),
            "settings": settings,
            **self._media(mixture),
        }
        return {**training, "one_question": True} if arm.get("one_question") else training


def _arms(group: Group) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Tags and changes of each arm of a group."""
    if "grid" not in group:
        return [
            ({group["tag"]: name} if "tag" in group else {}, arm) for name, arm in group.get("arms", {"": {}}).items()
        ]
    combinations = [dict(zip(group["grid"], values, strict=True)) for values in product(*group["grid"].values())]
    return [(settings, {"settings": {**settings, "advantage": advantage_of(settings)}}) for settings in combinations]


def advantage_of(settings: Mapping[str, Any]) -> str:
    """The strategy that is run for one with a chosen count: equal ones are one job."""
    name: str = settings["advantage"]
    return SAME_WHEN_COUNTED.get((name, settings["scale_rewards"]), name)


def _with_steps(stage: Mapping[str, Any], max_steps: int) -> dict[str, Any]:
    """A stage of the curriculum, its share of the steps as their number."""
    steps = {"steps": max(1, round(stage["share"] * max_steps))} if "share" in stage else {}
    return {**{name: value for name, value in stage.items() if name != "share"}, **steps}
