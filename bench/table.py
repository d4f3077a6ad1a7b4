"""Turns the JSON of `make bench` into docs/benchmarks.md."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from bench.test_cpu import FRAMES, KEEP, LENGTH, PER_FRAME, SCORES, SCORES_KEEP, WIDTH

Row = dict[str, Any]

# What each operation must at least move, as a share of the bytes that a copy of the tokens moves (one read, one write).
FLOOR = {"surprise": 0.5, "compress": 0.5 * (1 + KEEP / LENGTH), "gather": KEEP / LENGTH}

INTRO = f"""# CPU benchmarks

Made by `make bench`; do not edit.

{{machine}}.

Median of the rounds, with the interquartile range behind it, in milliseconds; one thread unless said otherwise.
Compilation and two warm-up calls come before the first round. GPU: no GPU has run the CUDA kernels yet; they are
*compiled, not run*, and `make gpu` will write their numbers.

**Video:** {FRAMES} frames of {PER_FRAME} tokens, {WIDTH} wide ({LENGTH} tokens), of which {KEEP} are kept; half of the
places stand still but for small noise. **Scores:** {SCORES:,} normal numbers in one video, of which {SCORES_KEEP:,} are
kept. **Floor:** the time that moving the least possible bytes takes (tokens read once, what is kept written once) at
the speed of `copy_` in the same run. All under inference mode. Surprise in torch is written in two ways: with torch's
own `cosine_similarity`, and from **three sums**, each norm taken once, which fuses better. **compile** is the better of
the modes default and max-autotune; **engine rule** is argsort and a boolean mask, eager. **policy_logits** has two
hidden layers of 64, float32."""


def label(name: str) -> str:
    for pattern, text in (
        (r"test_\w+?_ours\[.*systematic", "ours, systematic"),
        (r"test_\w+?_ours\[.*topk", "ours, topk"),
        (r"test_\w+?_ours\[.*l2", "ours, l2"),
        (r"test_\w+?_ours", "ours"),
        (r"engine_compress", "engine rule"),
        (r"_eager", "eager torch"),
        (r"_compile\[", "torch.compile"),
        (r"index_select", "torch.index_select"),
        (r"copy", "copy"),
    ):
        if re.search(pattern, name):
            formula = re.search(r"torch_surprise(_sums)?", name)
            return text + ("" if formula is None else ", three sums" if formula[1] else ", cosine_similarity")
    raise ValueError(f"no label for the benchmark {name}")


def best_of_each(rows: list[Row]) -> dict[str, Row]:
    """The fastest row under each label."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["stats"]["median"]):
        best.setdefault(label(row["name"]), row)
    return best


def milliseconds(row: Row) -> str:
    return f"{row['stats']['median'] * 1e3:.2f} ± {row['stats']['iqr'] * 1e3:.2f}"


def comparison(group: str, rows: list[Row], copy: float | None) -> list[str]:
    """One table: each label's best, how many times slower than ours it is, and the ratio to the floor."""
    best = best_of_each(rows)
    ours = next(row for name, row in best.items() if name.startswith("ours") and "l2" not in name)
    share = FLOOR.get(group.split()[0])
    floor = None if copy is None or share is None else copy * share
    lines = [f"\n## {group}\n"]
    if floor is not None:
        lines.append(f"Floor: {floor * 1e3:.2f} ms.\n")
    lines.append("| | ms | ours is faster by | times the floor |\n|---|---:|---:|---:|")
    for name, row in best.items():
        median = row["stats"]["median"]
        ratio = "" if name.startswith("ours") else f"{median / ours['stats']['median']:.1f}x"
        over = "" if floor is None else f"{median / floor:.2f}"
        lines.append(f"| {name} | {milliseconds(row)} | {ratio} | {over} |")
    return lines


def scaling(rows: list[Row]) -> list[str]:
    lines = ["\n## Two threads\n", "| | one thread, ms | two threads, ms | speed-up |\n|---|---:|---:|---:|"]
    pairs: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        found = re.fullmatch(r"test_threads_(\w+)\[(?:(.*)-)?(\d)\]", row["name"])
        assert found is not None, row["name"]
        what = {"gumbel_topk_with_log_prob": "gumbel_topk_with_log_prob, 8 draws"}.get(found[1], found[1])
        pairs[" ".join(filter(None, (what, found[2])))][found[3]] = row
    for name, pair in pairs.items():
        gain = pair["1"]["stats"]["median"] / pair["2"]["stats"]["median"]
        lines.append(f"| {name} | {milliseconds(pair['1'])} | {milliseconds(pair['2'])} | {gain:.2f}x |")
    return lines


def page(results: Row) -> str:
    """The whole document, from the JSON that bench/__main__.py keeps."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in results["benchmarks"]:
        groups[row["group"]].append(row)
    lines = [INTRO.format(machine=results["machine"])]
    copies = {name.split()[1]: rows[0]["stats"]["median"] for name, rows in groups.items() if name.startswith("copy ")}
    for group, rows in groups.items():
        if not group.startswith(("copy", "threads")):
            lines += comparison(group, rows, copies.get(group.split()[-1]))
    lines += scaling([row for group, rows in groups.items() if group.startswith("threads") for row in rows])
    memory = results["memory"]
    share = memory["extra"] / (memory["input"] + memory["output"])
    beyond = max(memory["extra"] - memory["output"], 0) / (memory["input"] + memory["output"])
    lines.append(
        "\n## Memory\n\n"
        f"compress of {memory['input'] / 1e6:.0f} MB of float32 tokens raised the process's peak by "
        f"{memory['extra'] / 1e6:.1f} MB, {memory['output'] / 1e6:.1f} MB of it the output: beyond that, {beyond:.2%} "
        f"of input and output together (in all {share:.2%})."
    )
    return "\n".join(lines) + "\n"
