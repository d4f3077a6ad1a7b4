"""The jobs of each experiment of recipe.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from evaluation.jobs import Job, fingerprint
from score_video.methods import IndexMethod, find_method
from score_video.rl.presets import PRESETS

Recipe = Mapping[str, Any]
Group = Mapping[str, Any]
"""One entry of an experiment in recipe.yaml."""
Test = dict[str, Any]

RECIPE: Recipe = yaml.safe_load(Path(__file__).with_name("recipe.yaml").read_text(encoding="utf-8"))
QUICK: Recipe = {**RECIPE, **RECIPE["quick"]}
EXPERIMENTS = tuple(RECIPE["experiments"])

SAME_WHEN_COUNTED = {
    ("by_action", False): "leave_one_out",
    ("by_action", True): "leave_one_out",
    ("by_objective", False): "joint",
}
"""Strategies (and whether they divide) that are another one by definition where the policy chooses the count."""


def reader_names(recipe: Recipe) -> list[str]:
    """The readers that a recipe's experiments name, "shipped" first."""
    groups = [group for of in recipe["experiments"].values() for group in of]
    tested = [name for group in groups for name in group.get("test_readers", ())]
    trained = [name for group in groups for arm in group.get("arms", {}).values() for name in arm.get("readers", ())]
    return list(dict.fromkeys(["shipped", *tested, *trained]))


def footage_fingerprint(recipe: Recipe) -> str:
    """How parameters name the clip."""
    return fingerprint(recipe["footage"]["name"].partition(".")[0], recipe["footage"]["sha256"])


@dataclass(frozen=True)
class Plan:
    """What there is to run.

    Attributes:
        recipe: of recipe.yaml.
        readers: fingerprints by name; "shipped" is the one that nearly everything is about.
        code: hash of the code that runs it.
    """

    recipe: Recipe
    readers: Mapping[str, str]
    code: str

    def experiments(self) -> dict[str, list[Job]]:
        """The jobs of each experiment."""
        return {
            name: [job for group in groups for job in self.jobs(group)]
            for name, groups in self.recipe["experiments"].items()
        }

    def jobs(self, group: Group) -> Iterator[Job]:
        """The jobs of a group."""
        splits = group.get("splits", [self.recipe["one_split"]])
        tests = [
            (reader, self._test(group, split, reader))
            for reader in group.get("test_readers", ["shipped"])
            for split in splits
        ]
        if group["jobs"] in ("policy", "counted"):
            yield from self._policies(group, [test for _, test in tests])
            return
        for reader, test in tests:
            tags = {**({} if reader == "shipped" else {"tower": reader}), "split": test["split"]}
            if group["jobs"] == "full":
                yield Job("full", {"test": test}, self.code, tags)
            for name in group.get("methods", ()):
                yield Job("method", {"test": test, **self._method(name)}, self.code, {**tags, "method": name})

    def _test(self, group: Group, split: str, reader: str) -> Test:
        """What to test on."""
        most = self.recipe["test_videos"][split]
        test = {
            "environment": group.get("environment", "miniature"),
            "reader": self.readers[reader],
            "split": split,
            "seed": self.recipe["test_seed"],
            "videos": min(most, group.get("test_videos", most)),
        }
        return {**test, "footage": footage_fingerprint(self.recipe)} if split == "footage" else test

    def _method(self, name: str) -> dict[str, Any]:
        """How it is tested: by either selection where it is a score, with several seeds where it draws."""
        own_rule = name == "oracle" or isinstance(find_method(name), IndexMethod)
        return {
            "method": name,
            "selections": [None] if own_rule else ["topk", "systematic"],
            "seeds": self.recipe["seeds"] if name == "random" else [0],
            "retentions": self.recipe["retentions"],
        }

    def _policies(self, group: Group, tests: list[Test]) -> Iterator[Job]:
        """Policies of every arm and seed."""
        few, how = group.get("few", False), {}
        if group["jobs"] == "policy":
            how["tests"] = tests
            how["selections"] = ["systematic"] if few else ["systematic", "topk"]
        else:
            (how["test"],) = tests
        how["retentions"] = group.get("retentions", self.recipe["few_retentions" if few else "retentions"])
        for (tags, arm), seed in product(_arms(group), group.get("seeds", self.recipe["seeds"])):
            parameters = {"training": self._training(group, arm, seed), **how}
            yield Job(group["jobs"], parameters, self.code, {**group.get("tags", {}), **tags, "seed": seed})

    def _training(self, group: Group, arm: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """What decides a training (:func:`evaluation.train.train`)."""
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
        training = {
            "environment": group.get("environment", "miniature"),
            "readers": [self.readers[name] for name in arm.get("readers", ["shipped"])],
            "seed": seed,
            "mixture": group.get("mixture", dict.fromkeys(group.get("splits", [self.recipe["one_split"]]), 1.0)),
            "train_videos": min(most, group.get("train_videos", most)),
            "policy": dict(arm.get("policy", policy)),
            "settings": settings,
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
