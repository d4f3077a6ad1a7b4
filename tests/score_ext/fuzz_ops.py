"""Calls every op with random arguments: ``python fuzz_ops.py SEED COUNT [FIRST]``.

Most calls are valid ones with some arguments replaced, so that they get past the first checks. A call must raise a
Python exception or return tensors of the documented shapes and dtypes. The number of the call is written to stderr
before it is made, so that a crash tells which one it was: ``python fuzz_ops.py SEED 1 NUMBER`` repeats it.
"""

from __future__ import annotations

import faulthandler
import math
import random
import sys
from collections.abc import Callable
from typing import Any

import torch
from batches import SCORE_KINDS, Layout, scores_of_kind
from cases import DIFFERENTIABLE, OPS, call, op_arguments
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64, torch.bool,
          torch.uint8, torch.complex64, torch.float8_e5m2)  # fmt: skip
INTEGERS = (-(2**63), -(2**31) - 1, -(2**31), -5, -1, 0, 1, 2, 3, 4, 7, 30, 100, 2**31, 2**32, 2**62, 2**63 - 1)
FLOATS = (0.0, 0.5, 0.999, 1.0, -1.0, 1e-5, 1e-300, 1e300, math.nan, math.inf, -math.inf)
STRINGS = ("cosine", "l2", "topk", "systematic", "", "x", "Cosine", "\0", "\u2603" * 100)


def random_layout(choose: random.Random) -> Layout:
    count = choose.randint(1, 4)
    return Layout(tuple((choose.randint(0, 6), choose.randint(1, 9)) for _ in range(count)))


def random_tensor(choose: random.Random) -> Tensor:
    """Any dtype and shape, values that are often extreme."""
    shape = [choose.choice((0, 1, 2, 3, 4, 5, 17, 22)) for _ in range(choose.choice((0, 1, 1, 1, 2, 2, 3)))]
    dtype = choose.choice(DTYPES)
    values = torch.tensor([choose.choice(FLOATS) for _ in range(math.prod(shape))], dtype=torch.float64)
    if not dtype.is_floating_point and not dtype.is_complex:
        spread = choose.choice((1, 5, 25, 2**31 - 1, 2**40))
        values = torch.tensor([choose.randint(-spread, spread) for _ in range(math.prod(shape))], dtype=torch.int64)
    return values.reshape(shape).to(dtype)


def changed_tensor(choose: random.Random, tensor: Tensor) -> Tensor:
    """The same, or nearly: other values, one row more or fewer, other strides, another dtype or device."""
    changes: list[Callable[[], Tensor]] = [
        lambda: tensor[:-1],
        lambda: torch.cat([tensor, tensor[:1]]),
        lambda: tensor.flip(0),
        lambda: tensor.sort(dim=0).values,
        lambda: tensor[::2],
        lambda: tensor.repeat_interleave(2, 0)[::2],
        lambda: tensor[:1].expand(tensor.shape),
        lambda: tensor.t(),
        lambda: tensor[None],
        lambda: tensor.to(choose.choice(DTYPES)),
        lambda: tensor.to("meta"),
        lambda: tensor.to_sparse(),
        lambda: torch.zeros_like(tensor),
        lambda: torch.full_like(tensor, choose.choice((-1, 1, 3, 2**31 - 1))),
        lambda: tensor + choose.choice((-1, 1, 2**30)),
        lambda: tensor * choose.choice((-1, 2, 1000)),
        lambda: torch.where(torch.rand(tensor.shape) < 0.2, choose.choice((-1, 0, 5, 2**31 - 1)), tensor),
        lambda: scores_of_kind(choose.choice(SCORE_KINDS), tensor.numel(), choose.randint(0, 9)).view(tensor.shape),
        lambda: tensor.clone().requires_grad_(),
    ]
    try:
        return choose.choice(changes)()
    except (RuntimeError, IndexError):  # not for this dtype or shape
        return random_tensor(choose)


def changed(choose: random.Random, value: Any) -> Any:
    if choose.random() < 0.05:
        return choose.choice((None, 1, 0.5, "topk", True, torch.zeros(2), [], object()))
    if isinstance(value, Tensor):
        return changed_tensor(choose, value) if choose.random() < 0.8 else random_tensor(choose)
    if isinstance(value, bool) or value is None:
        return choose.choice((True, False, None, random_tensor(choose)))
    if isinstance(value, int):
        return choose.choice((*INTEGERS, value - 1, value + 1))
    if isinstance(value, float):
        return choose.choice(FLOATS)
    if isinstance(value, str):
        return choose.choice(STRINGS)
    return choose.choice(DTYPES)


def random_arguments(choose: random.Random, op: str) -> dict[str, Any]:
    arguments = op_arguments(random_layout(choose), choose.randint(0, 99))[op]
    if op.startswith("policy") or op in ("relative_logits", "relative_rows"):
        arguments |= {"use_token": True, "use_residual": True}
    if op in ("relative_logits", "relative_rows"):
        arguments["use_position"] = True
    count = min(len(arguments), choose.choice((0, 1, 1, 1, 2, 3, 99)))
    for name in choose.sample(list(arguments), count):
        arguments[name] = changed(choose, arguments[name])
    return arguments


def documented(op: str, arguments: dict[str, Any]) -> list[tuple[torch.dtype, tuple[int, ...]]]:
    """Dtypes and shapes of the results, as score_ext/ops.py and csrc/ops.cpp promise them."""
    videos = len(arguments["cu_seqlens"]) - 1 if "cu_seqlens" in arguments else 0
    rows = next((len(arguments[name]) for name in ("tokens", "scores", "logits") if name in arguments), 0)
    # torch takes a tensor of one element, or None for a bool, where a schema has a number.
    total, samples = int(arguments.get("total_keep", 0)), int(arguments.get("num_samples", 0))
    index = (torch.int64, (samples, total))
    log_prob = (torch.float32, (samples, videos))
    match op:
        case "policy_state":
            width = arguments["tokens"].shape[1]
            columns = width * (bool(arguments["use_token"]) + bool(arguments["use_residual"]))
            columns += 0 if arguments["features"] is None else arguments["features"].shape[1]
            return [(arguments["dtype"], (int(arguments["end"]) - int(arguments["begin"]), columns))]
        case "relative_state":
            return [(torch.float32, (rows, 43))]
        case "relative_measures":
            groups = int(arguments["num_frames"]) + videos
            return [(torch.float32, (rows, 13)), (torch.float64, (groups, 13, 2))]
        case "relative_rows":
            parts = {"use_residual": 25, "use_token": 18, "use_position": 21}
            columns = sum(width for name, width in parts.items() if arguments[name])
            columns += 0 if arguments["features"] is None else arguments["features"].shape[1]
            return [(arguments["dtype"], (int(arguments["end"]) - int(arguments["begin"]), columns))]
        case "select" | "divprune":
            return [(torch.int64, (total,))]
        case "gumbel_topk":
            return [index, index]
        case "plackett_luce_log_prob":
            return [(torch.float32, (len(arguments["order"]), videos))]
        case "gumbel_topk_with_log_prob":
            return [index, log_prob]
        case "sample_bernoulli":
            return [(torch.bool, (samples, rows)), log_prob, (torch.int32, (samples, videos))]
        case "gather":
            return [(arguments["tokens"].dtype, (len(arguments["index"]), *arguments["tokens"].shape[1:]))]
        case "thumbnails":
            cells = int(arguments["rows"]), int(arguments["columns"])
            return [(torch.float32, (*arguments["pixels"].shape[:2], *cells))]
        case "count_sketch":
            return [(torch.float32, (rows, int(arguments["width"])))]
        case "kept_offsets":
            return [(torch.int32, (videos + 1,))]
        case "compress":
            tokens = arguments["tokens"]
            offsets = (torch.int32, (videos + 1,))
            return [(tokens.dtype, (total, tokens.shape[1])), (torch.int64, (total,)), offsets]
        case _:  # surprise, policy_logits, plackett_luce_log_prob_backward
            return [(torch.float32, (rows,))]


def fuzz_once(seed: int, number: int) -> bool:
    """One call; whether it was accepted."""
    choose = random.Random(f"{seed}/{number}")
    torch.manual_seed(number)
    op = choose.choice(OPS)
    arguments = random_arguments(choose, op)
    print(number, op, file=sys.stderr, flush=True)
    try:
        results = call(op, arguments)
    except Exception as error:  # any, but a Python one
        assert str(error), f"{op} refused without a word"
        return False
    got = [(result.dtype, tuple(result.shape)) for result in results]
    assert got == documented(op, arguments), f"{op} returned {got}, not {documented(op, arguments)}"
    for result in results:
        if result.requires_grad and result.device.type == "cpu" and op in DIFFERENTIABLE:
            result.backward(torch.ones_like(result), retain_graph=True)
    return True


def main() -> None:
    faulthandler.enable()
    seed, count, *first = map(int, sys.argv[1:])
    start = first[0] if first else 0
    accepted = sum(fuzz_once(seed, number) for number in range(start, start + count))
    print(accepted)


if __name__ == "__main__":
    main()
