"""What the jobs do. Each function takes the files and its parameters, and returns what can be kept as JSON."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from evaluation.jobs import Files, Result
from evaluation.statistics import pack, share_out
from evaluation.worlds import WORLDS
from score_video import Compressor
from score_video.miniature.evaluate import choose_by_method, choose_by_policy
from score_video.miniature.train_policy import train_policy
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy, expected_count
from score_video.rl.accuracy import Accuracy, Choose, budgets, choose_by, evaluate, evaluate_counts
from score_video.rl.environment import EncodedBatch
from score_video.rl.multiple_choice import NOT_ASKED, ReaderEnvironment

Test = Mapping[str, Any]
"""environment, reader, split, seed, videos, and footage or features where they are needed."""
Batches = Sequence[EncodedBatch]
TIMES = 20
"""How many videos a choice is timed on, each by itself."""


def full(files: Files, test: Test) -> Result:
    """The reader on all tokens; and which questions there are, bool [videos, tasks], packed, and its shape."""
    env, batches = _encoded_test(files, test)
    asked = (torch.cat([batch.payload.answers for batch in batches]) != NOT_ASKED).numpy()
    return {"shape": list(asked.shape), "asked": pack(asked), "row": _row(evaluate(env, batches, None))}


def method(
    files: Files, test: Test, method: str, selections: Sequence[Any], seeds: Sequence[int], retentions: Sequence[float]
) -> Result:
    """A method without training at each retention, by each selection (None: a rule of its own) and seed."""
    env, batches = _encoded_test(files, test)
    rows = []
    for selection, seed, retention in product(selections, seeds, retentions):
        choose = _choose_by(test["environment"], method, selection, seed)
        row = _row(evaluate(env, batches, choose, retention))
        if method != "oracle":
            row["milliseconds"] = milliseconds(batches, choose, retention)
        rows.append({"selection": selection, "seed": seed, "retention": retention, **row})
    return {"rows": rows}


def policy(
    files: Files,
    training: Mapping[str, Any],
    tests: Sequence[Test],
    retentions: Sequence[float],
    selections: Sequence[Any],
) -> Result:
    """A policy trained, and tested by each selection at each retention."""
    trained, curve = _trained(files, training)
    sees_question = trained.config.question_width > 0
    test_policy = _test_seeing if sees_question else evaluate
    rows = []
    for test, selection, retention in product(tests, selections, retentions):
        env, batches = _encoded_test(files, test)
        choose = choose_by_policy(trained, selection)
        row = _row(test_policy(env, batches, choose, retention))
        timed = [_asking(batch, 0) for batch in batches[:TIMES]] if sees_question else batches
        row["milliseconds"] = milliseconds(timed, choose, retention)
        of_test = {"split": test["split"], "reader": test["reader"], "selection": selection, "retention": retention}
        rows.append({**of_test, **row})
    return {"curve": curve, "rows": rows}


def counted(files: Files, training: Mapping[str, Any], test: Test, retentions: Sequence[float]) -> Result:
    """A policy that chooses the count: how many it would keep, how that follows what happens in a video, how good it
    is; and at each retention, its counts scaled to that mean against the same count for every video."""
    trained, curve = _trained(files, training)
    env, batches = _encoded_test(files, test)
    with torch.no_grad():
        expected = torch.cat([expected_count(trained(batch.videos), batch.videos) for batch in batches])
    lengths = torch.cat([batch.videos.lengths for batch in batches])
    choose = choose_by_policy(trained)

    def at(counts: Tensor) -> dict[str, Any]:
        keeps = torch.split(counts.int(), [batch.videos.num_videos for batch in batches])
        return _row(evaluate_counts(env, batches, choose, keeps))

    equal_mean = []
    for retention in retentions:
        same = torch.cat([budgets(batch, retention) for batch in batches])
        # a policy that has collapsed expects 0 tokens, of which there are no shares
        scaled = torch.from_numpy(share_out(expected.clamp(min=1e-6), int(same.sum()), lengths))
        equal_mean.append({"retention": retention, "adaptive": at(scaled), "fixed": at(same)})
    activity = env.world(test["split"], "test", test["seed"]).videos(range(test["videos"])).activity
    videos = pd.DataFrame({"activity": activity.double(), "expected": expected.double()})
    return {
        "curve": curve,
        "expected": float(expected.mean()),
        "expected_ratio": float((expected / lengths).mean()),
        "correlation": float(videos.corr("spearman").loc["expected", "activity"]),  # NaN where one does not vary
        "by_activity": [
            [float(level), len(own), float(own.mean()), float(own.std(ddof=0))]
            for level, own in videos.groupby("activity")["expected"]
        ],
        "deployed": at(expected.round().clamp(min=1).minimum(lengths)),
        "equal_mean": equal_mean,
    }


def milliseconds(batches: Batches, choose: Choose, retention: float) -> float:
    """What choosing from one video takes of a core, the median over the first videos of some batches; after another
    one. The processor's time and not the clock's: other jobs run beside this one."""
    times = []
    for batch in (batches[0], *batches[:TIMES]):
        one = _first_video(batch)
        keep = budgets(one, retention)
        began = time.process_time()
        choose(one, keep)
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times[1:])


FUNCTIONS: dict[str, Callable[..., Result]] = {"full": full, "method": method, "policy": policy, "counted": counted}


def _choose_by(world: str, method: str, selection: Any, seed: int) -> Choose:
    """A method, the world's oracle, or "pretrained@...", the policy that comes with the package."""
    if method == "oracle":
        return WORLDS[world].oracle
    if method.partition("@")[0] == "pretrained":
        return choose_by(Compressor.from_pretrained("pretrained", selection=selection))
    return choose_by_method(method, selection, seed)


@lru_cache(maxsize=16)
def _environment(world: str, reader: Path, media: Path | None) -> Any:
    """Made once in a process."""
    return WORLDS[world].environment(reader, media)


@lru_cache(maxsize=7)
def _test_batches(world: str, env: Any, split: str, seed: int, videos: int) -> list[EncodedBatch]:
    """Encoded once in a process while it works on the same ones."""
    return WORLDS[world].test_batches(env, split, seed, videos)


def _media(files: Files, parameters: Mapping[str, Any]) -> Path | None:
    """The clip or the features that parameters name, if they name any."""
    named = parameters.get("footage") or parameters.get("features")
    return files[named] if named else None


def _encoded_test(files: Files, test: Test) -> tuple[Any, list[EncodedBatch]]:
    """An environment and its videos after the vision tower."""
    env = _environment(test["environment"], files[test["reader"]], _media(files, test))
    return env, _test_batches(test["environment"], env, test["split"], test["seed"], test["videos"])


def _trained(files: Files, training: Mapping[str, Any]) -> tuple[SurprisePolicy, list[list[float]]]:
    """A policy, as :class:`evaluation.experiments.Plan` describes its training, and its curve."""
    world, media = training["environment"], _media(files, training)
    readers = [_environment(world, files[reader], media) for reader in training["readers"]]
    return train_policy(training, readers, WORLDS[world].examples)


def _row(accuracy: Accuracy) -> Result:
    """What a result keeps of a test."""
    return {
        "accuracy": accuracy.mean,
        "questions": int(accuracy.asked.sum()),
        "kept": accuracy.kept / accuracy.tokens,
        "right": pack((accuracy.results == 1).numpy()),
    }


def _first_video(batch: EncodedBatch) -> EncodedBatch:
    """The first video of a batch alone, as a policy or a rule sees it."""
    own, length = batch.videos, int(batch.videos.lengths[0])
    size = own.tokens_per_frame[:1]
    one = PackedVideos(own.tokens[:length], own.cu_seqlens[:2], size, own.columns[:1], length // int(size))
    return replace(batch, videos=one, question=None if batch.question is None else batch.question[:1])


def _test_seeing(env: ReaderEnvironment, batches: Batches, choose: Choose, retention: float) -> Accuracy:
    """As :func:`evaluate`, by a policy that sees the question: it chooses anew for each, and is asked that alone."""
    tasks = range(batches[0].payload.answers.shape[1])
    by_task = [evaluate(env, [_asking(batch, task) for batch in batches], choose, retention) for task in tasks]
    return replace(by_task[0], results=torch.stack([one.results for one in by_task]).amax(0))  # NOT_ASKED is the least


def _asking(batch: EncodedBatch, task: int) -> EncodedBatch:
    """A batch of which nothing but one task is asked, and the policy told so."""
    answers: Tensor = batch.payload.answers
    others = torch.arange(answers.shape[1]) != task
    payload = replace(batch.payload, answers=answers.masked_fill(others, NOT_ASKED))
    return EncodedBatch(batch.videos, payload, (~others).float().expand(batch.videos.num_videos, -1))
