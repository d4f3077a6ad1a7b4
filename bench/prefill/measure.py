"""What is measured, one record at a time: a phase of a geometry at a length."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench.prefill.baselines import BASELINES, Baseline, Scores
from bench.prefill.geometry import Geometry
from bench.prefill.model import Workload, make_model, make_workload
from bench.prefill.timing import attention_kernel, attention_times, measure
from score_ext.budget import keep_count
from score_video.compressor import Compressor
from score_video.packed import Selection
from score_video.policy import SurprisePolicy, SurprisePolicyConfig, pretrained_policy

Record = dict[str, Any]

POLICY, SYSTEMATIC = "policy", "policy, systematic"
RESIDUAL, RESIDUAL_BFLOAT16 = "residual policy", "residual policy, bfloat16"
METHODS = (POLICY, SYSTEMATIC, RESIDUAL, RESIDUAL_BFLOAT16, *(baseline.name for baseline in BASELINES))
COMPILED = ", compiled"
SEED = 0
OUT_OF_MEMORY = "out of memory"

VISION_REPEATS = 2  # the longest of the phases, and the one that nothing here changes


@dataclass(frozen=True)
class Recipe:
    """How much is measured.

    Attributes:
        geometries: of which models.
        retentions: fractions kept; 1 is the stock model.
        warmups, repeats: calls before the clock runs, and with it.
        compiled: the lengths at which the baselines are measured with torch.compile too.
        vision: whether the vision tower is run.
    """

    geometries: tuple[Geometry, ...]
    retentions: tuple[float, ...]
    warmups: int
    repeats: int
    compiled: frozenset[int]
    vision: bool


@dataclass(frozen=True)
class Job:
    """One record to be.

    Attributes:
        geometry, tokens: of which model, and one of its lengths.
        phase: "vision", "positions", "compress" (whole, by ``method``), "select" (the policy's part of it), "prefill".
        retention: of "compress", "select" and "prefill".
        method: one of :data:`METHODS`; a baseline's with ", compiled" behind it where torch.compile made its scores.
    """

    geometry: Geometry
    tokens: int
    phase: str
    retention: float | None = None
    method: str | None = None

    @property
    def compiled(self) -> bool:
        """Whether torch.compile is in it."""
        return self.method is not None and self.method.endswith(COMPILED)

    @property
    def key(self) -> str:
        """What the record is found by."""
        parts = self.geometry.name, self.tokens, self.phase, self.method, self.retention
        return "/".join(str(part) for part in parts if part is not None)


def all_jobs(recipe: Recipe) -> list[Job]:
    """In the order in which they run: models and prompts are made once."""
    compiled = [baseline.name + COMPILED for baseline in BASELINES]
    jobs = []
    for geometry in recipe.geometries:
        for tokens in geometry.lengths:
            methods = [*METHODS, *(compiled if tokens in recipe.compiled else ())]
            jobs += [Job(geometry, tokens, "prefill", retention) for retention in recipe.retentions]
            for retention in recipe.retentions:
                if retention < 1:
                    jobs.append(Job(geometry, tokens, "select", retention, POLICY))
                    jobs += [Job(geometry, tokens, "compress", retention, method) for method in methods]
            jobs.append(Job(geometry, tokens, "positions"))
            if recipe.vision:
                jobs.append(Job(geometry, tokens, "vision"))
    return jobs


class Bench:
    """Runs jobs; keeps the last model and prompt, because the next job mostly needs the same."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._recipe, self._device = recipe, device
        self._geometry: Geometry | None = None
        self._workload: Workload | None = None
        self._policies: dict[str, SurprisePolicy] = {}
        self._compiled: dict[str, Scores] = {}  # of the last prompt's shape
        self._model: Any = None

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Record]]:
        """Each job with its record; in one that failed, ``failed`` says why, and the rest go on."""
        for job in jobs:
            load = round(os.getloadavg()[0], 2)
            try:
                record = self._record(job)
            except torch.OutOfMemoryError:
                record = {"failed": OUT_OF_MEMORY}
            except RuntimeError as error:  # a kernel that this device refuses, no compiler for torch.compile
                traceback.print_exc()
                record = {"failed": str(error).strip().partition("\n")[0]}
            if "failed" in record:  # here the exception has let go of its tensors
                self._workload = None
                self._free()
            yield job, {**record, "load": load}

    @torch.no_grad()
    def _record(self, job: Job) -> Record:
        workload = self._prepare(job)
        if job.phase == "vision":
            return self._vision(workload)
        if job.phase == "positions":
            return self._measure(workload.position_ids)
        assert job.retention is not None
        frames, rows, columns = workload.shape
        keep = keep_count(frames, rows * columns, job.retention)
        if job.phase == "prefill":
            return {"kept": keep, **self._prefill(workload, keep)}
        videos = workload.encoded.visuals.videos
        select = self._selector(workload, job, keep)
        if (count := len(select().index)) != keep:
            raise RuntimeError(f"{job.key} keeps {count} tokens instead of {keep}")
        if job.phase == "select":
            return {"kept": keep, "tokens": len(videos.tokens), **self._measure(select)}
        return {"kept": keep, **self._measure(lambda: workload.encoded.compress(select()))}

    def _measure(self, function: Callable[[], Any]) -> Record:
        return measure(function, self._device, self._recipe.warmups, self._recipe.repeats)

    def _prepare(self, job: Job) -> Workload:
        geometry, shape = job.geometry, job.geometry.lengths[job.tokens]
        torch.manual_seed(SEED)
        if self._geometry != geometry:
            self._workload = self._model = self._geometry = None
            self._free()
            self._model = make_model(geometry, self._device)
            residual = SurprisePolicy(SurprisePolicyConfig(token_width=geometry.width)).to(self._device)
            self._policies = {
                POLICY: pretrained_policy(),
                SYSTEMATIC: pretrained_policy(),
                RESIDUAL: residual,
                RESIDUAL_BFLOAT16: deepcopy(residual).to(torch.bfloat16),
            }
            self._geometry = geometry
        if self._workload is None or self._workload.shape != shape:
            self._workload = None
            self._compiled.clear()
            self._free()
            self._workload = make_workload(self._model, geometry, shape, self._device)
        return self._workload

    def _free(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _selector(self, workload: Workload, job: Job, keep: int) -> Callable[[], Selection]:
        videos = workload.encoded.visuals.videos
        assert job.method is not None and job.retention is not None
        if job.method in self._policies:
            selection = "systematic" if job.method == SYSTEMATIC else None
            compressor = Compressor(self._policies[job.method], job.retention, selection)
            return lambda: compressor.select(replace(videos))  # without what it keeps of the time before
        baseline = next(one for one in BASELINES if one.name == job.method.removesuffix(COMPILED))
        scores = self._compiled_scores(baseline) if job.compiled else baseline.scores
        kept = torch.tensor([keep], dtype=torch.int32, device=self._device)
        return lambda: Selection(baseline.index(scores(workload.frames), keep), kept)

    def _compiled_scores(self, baseline: Baseline) -> Scores:
        """On a GPU for each shape anew, which makes the faster code and is soon done; on a CPU once for all."""
        if baseline.name not in self._compiled:
            if (dynamic := self._device.type == "cpu") is False:
                torch._dynamo.reset()  # it refuses to compile a function for many shapes
            self._compiled[baseline.name] = torch.compile(baseline.scores, fullgraph=True, dynamic=dynamic)
        return self._compiled[baseline.name]

    def _prefill(self, workload: Workload, keep: int) -> Record:
        """From embeddings to the first token's logits, the cache filled. Which tokens are kept does not matter here."""
        videos, device = workload.encoded.visuals.videos, self._device
        index = torch.arange(keep, device=device) * len(videos.tokens) // keep
        inputs = workload.encoded.compress(Selection(index, torch.tensor([keep], dtype=torch.int32, device=device)))
        prompt = inputs["attention_mask"].shape[1]
        times = attention_times(workload.geometry, prompt, device) if device.type == "cuda" else {}
        kernel = min(times, key=lambda name: times[name]) if times else None
        with attention_kernel(kernel):
            record = self._measure(lambda: workload.model(**inputs, logits_to_keep=1, use_cache=True))
        return {"prompt": prompt, "kernel": kernel, "kernel_seconds": times, **record}

    def _vision(self, workload: Workload) -> Record:
        """All frames in one call, or in as many as memory needs."""
        per_call = workload.shape[0]
        while True:
            try:
                record = measure(workload.vision(per_call), self._device, warmups=1, repeats=VISION_REPEATS)
                return {"frames_per_call": per_call, **record}
            except torch.OutOfMemoryError:
                if per_call == 1:
                    raise
            self._free()
            per_call = (per_call + 1) // 2
