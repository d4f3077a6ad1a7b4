"""docs/prefill.md, from the results of every machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import markdown
from bench.prefill.findings import Row, rows, targets
from bench.prefill.geometry import GEOMETRIES, TEXT_AFTER, TEXT_BEFORE, Geometry
from bench.prefill.measure import METHODS, POLICY, VISION_REPEATS
from bench.prefill.plot import draw
from bench.prefill.results import Results
from bench.times import Time
from score_video.files import output_file

INTRO = f"""# Prefill and time to first token

Made by `python -m bench.prefill`; do not edit.

How long a prompt with one video takes until its first new token, with all visual tokens and with those that a policy
keeps. Weights, pixels and features are random, because speed does not depend on them; shapes are those of the models
named. The prompt has {TEXT_BEFORE} tokens of text before the video and {TEXT_AFTER} after it, the batch is 1, the
dtype bfloat16. Decoding the video is not in these times.

- **vision**: the vision tower and projector, as transformers runs them with `sdpa` (a call for each window or frame);
  the same with and without compression, {VISION_REPEATS} repeats after one warm-up.
- **compress**: the policy's logits for every token, selection, gathering, and rewriting the prompt
  (`Compressor.select`, `EncodedInputs.compress`). The policy is the one that came with the package on
  the day of the run, which is what runs by default; its state is the same for any tower. The second table of each model
  has it with selection systematic too, where that is not the default, and one over the tokens themselves, of two hidden
  layers of 64 and random weights, in float32 and in bfloat16.
- **prefill**: from features and ids to the logits of the first token, the cache filled. Both sides run the stock model
  with `sdpa`, on a GPU in the fastest of torch's attention kernels for the prompt's length; neither is compiled.
- **first token**: vision, the stock model's position ids, compress and prefill together.
- **speed-up** of the prefill counts compress in. **by FLOPs** is what the count of operations predicts for the prefill
  alone: two for every weight of the layers and token, attention's over the causal half. What is between the two is what
  is left to gain (or, above it, what the longer prompt loses by itself).
- **memory**: the highest point of the prefill, weights included (CPU: of the whole process).

EVS and VidCom2 are written in plain torch as serving engines run them, at the same counts, eager and with
torch.compile, of which the faster is shown; rewriting the prompt is the same for all and counted in. Times are medians,
with the interquartile range behind ±.
"""

NO_GPU = "\n## GPU\n\nNo GPU has run this yet; `make gpu` there adds its tables.\n"


def write_document(results: Sequence[tuple[str, Results]], docs: Path) -> list[Path]:
    """Writes docs/prefill.md and a figure for each of the results, (name, what was measured); returns the files."""
    written, parts = [], [INTRO, _shapes(results)]
    if not any("gpu" in result.run for _, result in results):
        parts.append(NO_GPU)
    for name, result in sorted(results, key=lambda item: "gpu" not in item[1].run):
        figure = docs / f"{name}.png"
        with output_file(figure) as temporary:
            draw(result, _geometries(result), temporary)
        written.append(figure)
        parts.append(section(result, figure.name))
    document = docs / "prefill.md"
    with output_file(document) as temporary:
        temporary.write_text("".join(parts))
    return [document, *written]


def section(results: Results, figure: str) -> str:
    """One machine's part of the document."""
    run = results.run
    lines = [f"\n## {run.get('gpu', 'CPU: ' + run['cpu'])}\n", _machine(results), "", f"![Speed-up]({figure})"]
    for geometry in _geometries(results):
        for what, measured, reached in targets(results, geometry):
            lines.append(f"\n{what}: **{measured}**, {'reached' if reached else 'not reached'}.")
    for geometry in _geometries(results):
        lines += [f"\n### {geometry.name}\n", *table(results, geometry), "", *methods(results, geometry)]
        lines += _notes(results, geometry)
    return "\n".join(lines) + "\n"


def table(results: Results, geometry: Geometry) -> list[str]:
    """All phases at every length and retention, as lines of markdown."""
    head = (
        "visual tokens", "kept", "vision, ms", "compress, ms", "prefill, ms", "speed-up", "by FLOPs",
        "compress / prefill", "first token, ms", "speed-up", "memory, GB",
    )  # fmt: skip
    return markdown.table(head, (_cells(row) for row in rows(results, geometry)))


def _cells(row: Row) -> tuple[str, ...]:
    shared = _count(_tokens(row)), f"{row.retention:.0%}", _milliseconds(row.vision)
    prefill = _milliseconds(row.prefill, "out of memory")
    first = "" if row.first_token is None else markdown.number(1e3 * row.first_token)
    memory = "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.1f}"
    if row.retention == 1:
        return *shared, "", prefill, "", "", "", first, "", memory
    share = "" if row.share is None else f"{row.share:.2%}"
    gains = _times(row.speed_up()), _times(row.predicted)
    compress = _milliseconds(row.compress.get(POLICY), "out of memory")
    return *shared, compress, prefill, *gains, share, first, _times(row.first_token_speed_up), memory


def methods(results: Results, geometry: Geometry) -> list[str]:
    """The methods' own times, and the prefill's speed-up with each."""
    measured = list(rows(results, geometry))
    shown = [method for method in METHODS if any(method in row.compress for row in measured)]
    head = (
        "visual tokens", "kept", "policy's select alone, ms",
        *(f"{method}, ms" for method in shown), *(f"speed-up, {method}" for method in shown),
    )  # fmt: skip
    lines = [
        (
            _count(_tokens(row)), f"{row.retention:.0%}", _milliseconds(row.select),
            *(_milliseconds(row.compress.get(method)) for method in shown),
            *(_times(row.speed_up(method)) for method in shown),
        )
        for row in measured
        if row.retention < 1
    ]  # fmt: skip
    return markdown.table(head, lines)


def _shapes(results: Iterable[tuple[str, Results]]) -> str:
    measured = {geometry.name for _, result in results for geometry in _geometries(result)}
    head = ("model", "width", "layers", "heads (key, value)", "feed-forward", "weights in the layers", "shapes from")
    lines = [
        (
            g.name, _count(g.width), str(g.text["num_hidden_layers"]),
            f"{g.text['num_attention_heads']} ({g.text['num_key_value_heads']}) of {g.head_dim}",
            _count(g.text["intermediate_size"]), f"{g.linear_parameters / 1e6:,.0f} M", g.source,
        )
        for g in GEOMETRIES.values()
        if g.name in measured
    ]  # fmt: skip
    return "\n" + "\n".join(markdown.table(head, lines, numbers=range(1, 6))) + "\n"


def _machine(results: Results) -> str:
    run = results.run
    return machine_line(
        run,
        [record["load"] for record in results.records.values()],
        f"seed {run['seed']}; {run['repeats']} repeats after {run['warmups']} warm-ups. "
        f"Policies selected by {run.get('selection', 'systematic')}, the default then",
    )


def machine_line(run: dict[str, Any], loads: Sequence[float], how: str) -> str:
    """Where and when something was measured, ``how``, and how busy the machine was: ``loads``, while it ran."""
    busy = (
        ""
        if max(loads) < run["threads"] + 1
        else ", so **it was busy with other work: these times are to be taken again**"
    )
    gpu = f"{run['gpu']} ({run['gpu_bytes'] / 2**30:.0f} GiB), CUDA {run['cuda']}; " if "gpu" in run else ""
    versions = ", ".join(f"{name} {run[name]}" for name in ("torch", "transformers", "Python", "score-video", "commit"))
    vectors = f" with {run['vectors']}" if "vectors" in run else ""
    return (
        f"{gpu}{run['cpu']}{vectors}, {run['cores']} cores, {run['threads']} of torch's threads; {run['date']}; "
        f"{versions}; {how}. The machine's load while it ran: {min(loads):.1f} to {max(loads):.1f}{busy}."
    )


def _notes(results: Results, geometry: Geometry) -> list[str]:
    """What is out of the ordinary, or was chosen while it ran."""
    own = {key: record for key, record in results.records.items() if key.startswith(geometry.name + "/")}
    lines = []
    kernels = {record["kernel"] for record in own.values() if record.get("kernel")}
    if kernels:
        lines.append(f"Attention ran in torch's kernels: {', '.join(sorted(kernels))}.")
    for key, record in own.items():
        if "failed" in record:
            lines.append(f"{key.partition('/')[2]}: {record['failed']}.")
        frames = geometry.lengths[int(key.split("/")[1])][0]
        if record.get("frames_per_call", frames) < frames:
            lines.append(
                f"{key.partition('/')[2]}: {record['frames_per_call']} of {frames} frames in a call, for memory."
            )
    return ["", "  \n".join(lines)] if lines else []


def _geometries(results: Results) -> list[Geometry]:
    return [GEOMETRIES[name] for name in results.run["geometries"]]


def _tokens(row: Row) -> int:
    frames, per_row, columns = row.geometry.lengths[row.tokens]
    return frames * per_row * columns


def _count(value: int) -> str:
    return f"{value:,}"


def _milliseconds(time: Time | None, otherwise: str = "") -> str:
    return otherwise if time is None else time.told(1e3)


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}x"
