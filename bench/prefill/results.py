"""Records on disk: while a run is under way in build/prefill, when it is whole in bench/results."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.prefill.measure import SEED, Recipe, Record
from score_video.compressor import Compressor
from score_video.files import output_file
from score_video.provenance import circumstances, commit_of, uncommitted

ROOT = Path(__file__).parent.parent.parent
UNDER_WAY = ROOT / "build" / "prefill"
RESULTS = ROOT / "bench" / "results"


@dataclass
class Results:
    """A run's records by the key of their job.

    Attributes:
        run: where, when and how it was measured; equal in all its records.
        records: what :class:`bench.prefill.measure.Bench` returned.
    """

    run: dict[str, Any]
    records: dict[str, Record] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with output_file(path) as temporary:
            temporary.write_text(json.dumps({"run": self.run, "records": self.records}, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Results:
        return Results(**json.loads(path.read_text()))


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Machine, versions, date and commit ("+": files differ from it)."""
    where: dict[str, Any] = circumstances("torch", "transformers")
    where |= {"Python": where.pop("python"), "score-video": where.pop("score")}
    where["commit"] = commit_of(ROOT) + ("+" if uncommitted(ROOT) else "")
    where["threads"] = torch.get_num_threads()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return where | {"gpu": properties.name, "gpu_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return where | {"vectors": torch.backends.cpu.get_cpu_capability()}


def describe_run(recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """:func:`describe_machine`, seed and what was asked for."""
    return describe_machine(device) | {
        "seed": SEED,
        "dtype": "bfloat16",
        "selection": Compressor().selection_used,
        "geometries": [geometry.name for geometry in recipe.geometries],
        "retentions": list(recipe.retentions),
        "warmups": recipe.warmups,
        "repeats": recipe.repeats,
        "vision": recipe.vision,
    }


def open_results(path: Path, run: dict[str, Any]) -> Results:
    """What a run that was stopped left at ``path``, to be continued; a new one where there is none.

    Raises ValueError where it was another run: on another machine, with other versions or of other things.
    """
    if not path.exists():
        return Results(run)
    results = Results.load(path)
    for name in run.keys() | results.run.keys():
        if name != "date" and results.run.get(name) != run.get(name):
            raise ValueError(
                f"{path} is of a run with {name} {results.run.get(name)!r}, this one has {run.get(name)!r}: --fresh "
                "begins anew"
            )
    return results


def name_of(device: torch.device, bench: str = "prefill") -> str:
    """prefill-cpu, or prefill-gpu- and the GPU's name; or of another bench."""
    if device.type == "cpu":
        return f"{bench}-cpu"
    return f"{bench}-gpu-" + re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


def publish(results: Results, under_way: Path, path: Path) -> None:
    """Puts a run that is whole in its place; what was there before is replaced, the next run begins anew."""
    results.save(path)
    under_way.unlink()
