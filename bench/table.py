"""Turns what `make bench` kept, a file for each machine, into docs/benchmarks.md."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from bench.test_cpu import FRAMES, HIDDEN, KEEP, LENGTH, PER_FRAME, SCORES, SCORES_KEEP, SQUARE, WIDTH
from bench.test_relative import RELATIVE_COLUMNS, SIZES

Row = dict[str, Any]

# What each operation must at least move, as a share of the bytes that a copy of the tokens moves (one read, one write).
FLOOR = {
    "surprise": 0.5,
    "compress": 0.5 * (1 + KEEP / LENGTH),
    "relative_state": 1.0,  # two reads
    "relative_logits": 1.0,
}
# What is put beside the time that a copy of as many bytes takes, and may be less: what it writes stays in the cache.
COPIED = {"gather": KEEP / LENGTH}


def network_products(rows: int, columns: int) -> int:
    """Multiply-adds of two hidden layers and the logit."""
    return rows * (columns * HIDDEN + HIDDEN * HIDDEN + HIDDEN)


# Multiply-adds that a group's networks cannot do without.
PRODUCTS = {f"policy_logits {dtype}": network_products(LENGTH, 2 * WIDTH) for dtype in ("float32", "bfloat16")} | {
    f"relative_logits {name}": network_products(frames * rows * columns, RELATIVE_COLUMNS)
    for name, (frames, rows, columns, *_) in SIZES.items()
}

INTRO = f"""# CPU benchmarks

Made by `make bench`, which keeps the latest results of each machine in `bench/results`; do not edit.

{{machines}}

Median of the rounds, with the interquartile range behind it, in milliseconds; one thread unless said otherwise.
Compilation and two warm-up calls come before the first round; from score_ext 0.2.0 on a rival's output is compared with
ours before it is timed. GPU figures are in [gpu.md](gpu.md).

**Video:** {FRAMES} frames of {PER_FRAME} tokens, {WIDTH} wide ({LENGTH} tokens), of which {KEEP} are kept; half of the
places stand still but for small noise. **Scores:** {SCORES:,} normal numbers in one video, of which {SCORES_KEEP:,} are
kept. **Floor:** the time that moving the least possible bytes takes (tokens read once, or twice where two passes are
the least; what is kept written once) at the speed of `copy_` in the same run; **x floor** is how many times that a call
took. All under inference mode. Surprise in torch is written in two ways: with torch's own `cosine_similarity`, and from
**three sums**, each norm taken once, which fuses better. **compile** is the better of the modes default and
max-autotune; **engine rule** is argsort and a boolean mask, eager. **policy_logits** has two hidden layers of 64,
float32; **first product alone** is `torch.mm` of a state in memory with the first layer's weight, in the dtype of the
tokens. What the networks' products take at the speed of a square product of {SQUARE} in the same run stands over the
tables of both logits. **divprune** keeps a tenth of a video of so many tokens of that width, bfloat16; torch's step is
compiled, its loop is not. **default policy** is what people run: `Compressor()`, logits and selection, and a gather in
the table of compress; **selection** is its, by default when the machine ran this."""


# What a run does not say by itself; of the AMD EPYC with AVX2 on 2026-11-26, quiet.
SHORT_OF_GOALS = """## What falls short of its goal

Goals were set for the AMD EPYC with AVX2 before the work on them; figures in this list are of that machine.

- **The policy over tokens**, goal half of what 0.1 took: 1,960 tokens of 3,584, one thread, float32 weights, 25.5 to
  26.8 ms where 0.1 took 40.3 to 48.2, 1.6x (five rounds of both in turn, by the commands in
  `bench/residual_policy.py`). Its products alone would take longer than all of it at the speed of torch's square
  product (tables of policy_logits above). Tried and kept: LayerNorm taken of the products, so that no state is in
  memory; tokens fetched while the slice before is multiplied; the sums in four registers; no products where there is no
  residual. With bfloat16 weights it is 26.0 to 27.6 ms where 0.1 took 193 to 197.
- **relative_logits at 8,192 x 512**, goal 1.15x of the state alone: see its table above. The products are as much of so
  narrow a state's time that the speed of a square product already makes it 1.28x. Tried and kept: the tiles of
  policy_logits in place of torch's products and GELU. At 40,000 x 3,584 the goal is reached.
- **relative_state on two threads at 8,192 x 512**, goal 1.8x: see above, where copies gain 1.4x.
- **surprise in float32**, goal no further from its floor than on the Xeon, 1.24x: not shown on that machine. Its column
  is from before rows of four frames were read side by side (one after another does not keep memory busy), the Xeon's
  too; that of the EPYC with AVX-512 is from after it, and nearer to the floor than the goal. Tried and left: other
  distances and orders of prefetching, smaller blocks, and neighbouring rows of one frame side by side: none was faster.
- **`score compress`** of a clip of ten seconds, 32 frames, defaults, goal 2.5 s of wall time on two quiet cores: 3.3 to
  3.8 s in six runs, 2.9 to 3.4 in five earlier that day (`time score compress CLIP --frames 32 --out kept`). Loading
  torch and the policy is 1.5 to 2.2 s of it, as the last lines of each run say. On the EPYC with AVX-512 all of it is
  2.1 to 2.4 s, in five runs. Tried and kept: no garbage collections over what torch's import makes, one encoding for
  each frame of the overlay, the sheet and the video drawn side by side."""


def label(name: str) -> str:
    for pattern, text in (
        (r"default_policy", "ours, default policy"),
        (r"test_\w+?_ours\[.*systematic", "ours, systematic"),
        (r"test_\w+?_ours\[.*topk", "ours, topk"),
        (r"test_\w+?_ours\[.*l2", "ours, l2"),
        (r"test_\w+?_ours", "ours"),
        (r"engine_compress", "engine rule"),
        (r"_eager", "eager torch"),
        (r"_compile\[", "torch.compile"),
        (r"index_select", "torch.index_select"),
        (r"first_product", "first product alone, torch.mm"),
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


def name_of(machine: Row) -> str:
    """A machine's name at the head of a column."""
    name = re.sub(r"\((R|TM)\)|Processor|CPU", "", str(machine["cpu"]))
    return " ".join([*name.split(), f"({machine['vectors']})"])


def machines(results: list[Row]) -> list[str]:
    lines = ["| | processor | date | versions | selection |", "|---|---|---|---|---|"]
    for result in results:
        facts = result["machine"]
        versions = f"torch {facts['torch']}, Python {facts['python']}, {facts['compiler']}, score_ext {facts['score']}"
        processor = f"{facts['cpu']}, {facts['cores']} cores"
        selection = facts.get("selection", "systematic")  # what it was before results said so
        lines.append(f"| {name_of(facts)} | {processor} | {facts['date']} | {versions} | {selection} |")
    return lines


def by_group(result: Row) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in result["benchmarks"]:
        groups[row["group"]].append(row)
    return groups


def cells_of(group: str, result: Row) -> tuple[float | None, dict[str, list[str]]]:
    """A machine's part of a table: the floor in seconds, if any, and label -> (ms, slower than ours, x floor)."""
    groups = by_group(result)
    operation, _, dtype = group.partition(" ")
    share = FLOOR.get(operation, COPIED.get(operation))
    if group not in groups:
        return None, {}
    floor = None if share is None else groups[f"copy {dtype}"][0]["stats"]["median"] * share
    best = best_of_each(groups[group])
    ours = next((row["stats"]["median"] for name, row in best.items() if name in ("ours", "ours, topk")), 0.0)
    cells = {}
    for name, row in best.items():
        median = row["stats"]["median"]
        slower = "" if name.startswith("ours") else f"{median / ours:.1f}x"
        cells[name] = [milliseconds(row), slower, *([] if floor is None else [f"{median / floor:.2f}"])]
    return floor, cells


def at_the_speed_of_products(group: str, results: list[Row]) -> list[str]:
    """What a network's products take at the speed of a square one, beside what the op takes, and its state; where
    the square one was timed."""
    lines = []
    for result in results:
        groups = by_group(result)
        if group not in PRODUCTS or group not in groups or "square product" not in groups:
            continue
        products = groups["square product"][0]["stats"]["median"] / SQUARE**3 * PRODUCTS[group]
        ours = best_of_each(groups[group])["ours"]["stats"]["median"]
        line = (
            f"{name_of(result['machine'])}: the network's products at the speed of a square one {products * 1e3:.2f} ms"
        )
        if state := groups.get(group.replace("relative_logits", "relative_state") if "relative" in group else ""):
            alone = best_of_each(state)["ours"]["stats"]["median"]
            line += (
                f", with the state {(alone + products) * 1e3:.2f} ms ({1 + products / alone:.2f}x of the state alone; "
                f"ours {ours / alone:.2f}x)"
            )
        else:
            line += f"; ours takes {ours / products:.2f}x that"
        lines.append(line + ".\n")
    return lines


def comparison(group: str, results: list[Row]) -> list[str]:
    """One table, the machines side by side; a machine whose run did not have the group is left out."""
    operation = group.split()[0]
    parts = {name_of(result["machine"]): cells_of(group, result) for result in results}
    parts = {name: (floor, cells) for name, (floor, cells) in parts.items() if cells}
    ratio = ["x floor"] if operation in FLOOR else ["x copy"] if operation in COPIED else []
    heads = [head for name in parts for head in (f"{name}, ms", "ours is faster by", *ratio)]
    times = ", ".join(f"{floor * 1e3:.2f} ms ({name})" for name, (floor, _) in parts.items() if floor is not None)
    lines = [f"\n## {group}\n"]
    if operation in FLOOR:
        lines.append(f"Floor: {times}.\n")
    if operation in COPIED:
        lines.append(
            f"Copying as many bytes from and to main memory: {times}. That is no floor: the rows that are written stay "
            "in the cache.\n"
        )
    lines += at_the_speed_of_products(group, results)
    lines.append(f"| | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    for text in dict.fromkeys(name for _, cells in parts.values() for name in cells):
        row = [cell for _, cells in parts.values() for cell in cells.get(text, [""] * (2 + len(ratio)))]
        lines.append(f"| {text} | {' | '.join(row)} |")
    return lines


def thread_pairs(result: Row) -> dict[str, dict[str, Row]]:
    """What was timed with one thread and with two: name -> threads -> row."""
    pairs: dict[str, dict[str, Row]] = defaultdict(dict)
    for group, rows in by_group(result).items():
        for row in rows if group.startswith("threads ") else ():
            found = re.fullmatch(r"test_threads_(\w+)\[(?:(.*)-)?(\d)\]", row["name"])
            assert found is not None, row["name"]
            what = {"gumbel_topk_with_log_prob": "gumbel_topk_with_log_prob, 8 draws"}.get(found[1], found[1])
            pairs[" ".join(filter(None, (what, found[2])))][found[3]] = row
    return pairs


def scaling(results: list[Row]) -> list[str]:
    lines = [
        "\n## Two threads\n",
        "| | machine | one thread, ms | two threads, ms | speed-up |\n|---|---|---:|---:|---:|",
    ]
    of_machines = [(name_of(result["machine"]), thread_pairs(result)) for result in results]
    for what in dict.fromkeys(what for _, pairs in of_machines for what in pairs):
        for name, pairs in of_machines:
            if pair := pairs.get(what):
                gain = pair["1"]["stats"]["median"] / pair["2"]["stats"]["median"]
                one, two = milliseconds(pair["1"]), milliseconds(pair["2"])
                lines.append(f"| {what} | {name} | {one} | {two} | {gain:.2f}x |")
    return lines


def memory(results: list[Row]) -> list[str]:
    lines = ["\n## Memory\n"]
    for result in results:
        found = result["memory"]
        moved = found["input"] + found["output"]
        lines.append(
            f"{name_of(result['machine'])}: compress of {found['input'] / 1e6:.0f} MB of float32 tokens raised the "
            f"process's peak by {found['extra'] / 1e6:.1f} MB, {found['output'] / 1e6:.1f} MB of it the output: beyond "
            f"that, {(found['extra'] - found['output']) / moved:.2%} of input and output together.\n"
        )
    return lines


def page(results: list[Row]) -> str:
    """The whole document, from what bench/__main__.py keeps of each machine."""
    groups = dict.fromkeys(row["group"] for result in results for row in result["benchmarks"])
    lines = [INTRO.format(machines="\n".join(machines(results)))]
    for group in groups:
        if not group.startswith(("copy ", "threads ", "square ")):
            lines += comparison(group, results)
    lines += [*scaling(results), *memory(results), SHORT_OF_GOALS]
    return "\n".join(lines).rstrip() + "\n"
