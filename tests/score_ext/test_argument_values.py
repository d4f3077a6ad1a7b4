"""Arguments of the right kind with impossible values: a ValueError that says which, and what is allowed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from batches import Layout, int32, int64
from cases import OPS, call, linear_layers, op_arguments
from test_argument_types import FUNCTIONS, assert_no_paths, function_arguments

import score_ext

LAYOUT = Layout(((3, 4), (2, 5)))  # 12 and 10 tokens
LIMIT = 2**31 - 1


def arguments_of(op: str) -> dict[str, Any]:
    arguments = op_arguments(LAYOUT)[op]
    if "keep" in arguments and op not in ("plackett_luce_log_prob", "plackett_luce_log_prob_backward"):
        arguments["keep"] = int32(3, 4)
    if "total_keep" in arguments:
        arguments["total_keep"] = 7
    return arguments


# torch 2.15 hands a kernel's exception on as RuntimeError; the text is ours either way.
FROM_KERNEL = (ValueError, RuntimeError)


def refused(op: str, argument: str, changes: dict[str, Any]) -> None:
    with pytest.raises(FROM_KERNEL, match=rf"score\.{op}: .*\b{argument}\b") as caught:
        call(op, {**arguments_of(op), **changes})
    assert_no_paths(caught.value)
    if op in FUNCTIONS and set(changes) <= set(function_arguments(op)):
        with pytest.raises(ValueError, match=rf"\b{argument}\b"):
            getattr(score_ext, op)(**{**function_arguments(op), **arguments_of_function(op), **changes})


def arguments_of_function(op: str) -> dict[str, Any]:
    arguments = arguments_of(op)
    return {name: value for name, value in arguments.items() if name in function_arguments(op)}


WITH_OFFSETS = [op for op in OPS if "cu_seqlens" in op_arguments()[op]]
WITH_FRAMES = [op for op in OPS if "tokens_per_frame" in op_arguments()[op]]
WITH_KEEP = [op for op in OPS if "keep" in op_arguments()[op]]
WITH_TOTAL = [op for op in OPS if "total_keep" in op_arguments()[op]]
WITH_SEED = [op for op in OPS if "seed" in op_arguments()[op]]


@pytest.mark.parametrize("op", WITH_OFFSETS)
@pytest.mark.parametrize(
    "offsets", [(1, 12, 22), (-1, 12, 22), (0, 23, 22), (0, -5, 22), (0, 12, 21), (0, 12, 23), (0, 12, LIMIT),
                (0, -LIMIT - 1, 22), (-LIMIT - 1, LIMIT, 22)]
)  # fmt: skip
def test_offsets(op: str, offsets: tuple[int, ...]) -> None:
    if op == "kept_offsets" and offsets[:2] == (0, 12):
        pytest.skip("has no rows for the end to agree with")
    refused(op, "cu_seqlens", {"cu_seqlens": int32(*offsets)})


@pytest.mark.parametrize("op", WITH_OFFSETS)
def test_offsets_of_no_video(op: str) -> None:
    for size in (0, 1):
        refused(op, "cu_seqlens", {"cu_seqlens": torch.zeros(size, dtype=torch.int32)})


@pytest.mark.parametrize("op", WITH_FRAMES)
@pytest.mark.parametrize("frames", [(0, 5), (4, 0), (-4, 5), (5, 5), (4, 11), (LIMIT, 5), (-LIMIT - 1, 5), (24, 5)])
def test_tokens_per_frame(op: str, frames: tuple[int, int]) -> None:
    refused(op, "tokens_per_frame", {"tokens_per_frame": int32(*frames)})


@pytest.mark.parametrize("op", WITH_FRAMES)
def test_negative_tokens_per_frame_of_an_empty_video(op: str) -> None:
    arguments = op_arguments(Layout(((0, 4), (2, 5))))[op]
    with pytest.raises(FROM_KERNEL, match="tokens_per_frame"):
        call(op, {**arguments, "tokens_per_frame": int32(-1, 5)})


@pytest.mark.parametrize("op", WITH_KEEP)
@pytest.mark.parametrize("keep", [(-1, 8), (13, 0), (3, 11), (LIMIT, 0), (-LIMIT - 1, 0), (LIMIT, LIMIT)])
def test_budgets(op: str, keep: tuple[int, int]) -> None:
    refused(op, "keep", {"keep": int32(*keep)})


@pytest.mark.parametrize("op", WITH_TOTAL)
@pytest.mark.parametrize("total_keep", [6, 8, 0, -1, 23, 2**31, 2**62, -(2**63), 2**63 - 1])
def test_total_of_the_budgets(op: str, total_keep: int) -> None:
    refused(op, "total_keep", {"total_keep": total_keep})


@pytest.mark.parametrize("op", ["select", "compress"])
@pytest.mark.parametrize("offset", [1.0, -1e-9, 1.5, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("selection", ["topk", "systematic"])
def test_offset(op: str, offset: float, selection: str) -> None:
    refused(op, "offset", {"offset": offset, "selection": selection})


@pytest.mark.parametrize("name", ["", "TOPK", "top-k", "random", "systematic ", "cosine\0", "\N{SNOWMAN}" * 1000])
def test_unknown_names(name: str) -> None:
    refused("select", "selection", {"selection": name})
    refused("compress", "selection", {"selection": name})
    refused("surprise", "metric", {"metric": name})


@pytest.mark.parametrize("op", WITH_SEED)
def test_number_of_seeds(op: str) -> None:
    for seed in (int64(1, 2, 3), torch.zeros(0, dtype=torch.int64)):
        refused(op, "seed", {"seed": seed})


@pytest.mark.parametrize("op", WITH_SEED)
@pytest.mark.parametrize("num_samples", [0, -1, 2**31, 2**63 - 1, -(2**63)])
def test_number_of_samples(op: str, num_samples: int) -> None:
    refused(op, "num_samples", {"num_samples": num_samples})


@pytest.mark.parametrize("row", [22, -1, 2**31, 2**63 - 1, -(2**63)])
def test_index_out_of_range(row: int) -> None:
    refused("gather", "index", {"index": int64(0, row, 1)})


def test_index_into_nothing() -> None:
    with pytest.raises(ValueError, match="index"):
        score_ext.gather(torch.zeros(0, 4), int64(0))


@pytest.mark.parametrize("op", ["plackett_luce_log_prob", "plackett_luce_log_prob_backward"])
@pytest.mark.parametrize(
    "rows", [(0, 0, 12), (0, 1, 11), (12, 0, 1), (0, 1, 22), (-1, 0, 12), (0, 2**63 - 1, 12), (0, 1, -(2**63))]
)
def test_order_of_wrong_rows(op: str, rows: tuple[int, int, int]) -> None:
    """Twice the same, one of the other video, out of range; in the last of two samples."""
    changes = {"keep": int32(2, 1), "order": torch.stack([int64(0, 1, 12), int64(*rows)])}
    if op == "plackett_luce_log_prob_backward":
        changes["grad"] = torch.zeros(2, 2)
    refused(op, "order", changes)


@pytest.mark.parametrize("op", ["plackett_luce_log_prob", "plackett_luce_log_prob_backward"])
def test_order_of_no_samples(op: str) -> None:
    with pytest.raises(FROM_KERNEL, match="num_samples"):
        call(op, {**arguments_of(op), "keep": int32(0, 0), "order": torch.zeros(0, 0, dtype=torch.int64)})


@pytest.mark.parametrize(("begin", "end"), [(-1, 3), (4, 3), (0, 23), (23, 23), (0, 2**63 - 1), (-(2**63), 0)])
def test_range_of_rows(begin: int, end: int) -> None:
    refused("policy_state", "begin", {"begin": begin, "end": end})


@pytest.mark.parametrize("op", ["policy_state", "policy_logits"])
@pytest.mark.parametrize("epsilon", [0.0, -1e-5, math.nan, -math.inf])
def test_epsilon(op: str, epsilon: float) -> None:
    refused(op, "epsilon", {"epsilon": epsilon})


def test_empty_state() -> None:
    refused("policy_state", "use_token", {"use_token": False, "use_residual": False, "features": None})


@pytest.mark.parametrize("op", ["surprise", "compress", "policy_state", "policy_logits"])
def test_tokens_of_width_zero(op: str) -> None:
    refused(op, "tokens", {"tokens": torch.zeros(22, 0)})


STATE = 23  # columns of the state in op_arguments


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("w1", {"w1": torch.zeros(12, STATE + 1)}),
        ("w1", {"w1": torch.zeros(12, STATE).half()}),
        ("w1", {"b1": torch.zeros(11)}),
        ("w1", {"b1": torch.zeros(12, 1)}),
        ("w2", {"w2": torch.zeros(8, 11)}),
        ("w2", {"w2": None}),
        ("w2", {"b2": None}),
        ("w2", {"w2": torch.zeros(8, 12).bfloat16(), "b2": torch.zeros(8).bfloat16()}),
        ("w_out", {"w_out": torch.zeros(1, 7)}),
        ("w_out", {"w_out": torch.zeros(2, 8), "b_out": torch.zeros(2)}),
        ("w_out", {"b_out": torch.zeros(2)}),
        ("w_out", {"w2": None, "b2": None}),  # the output layer no longer fits
    ],
)
def test_layers_that_do_not_fit(argument: str, changes: dict[str, Any]) -> None:
    refused("policy_logits", argument, changes)


@pytest.mark.parametrize("number", [0, 1, 4])
def test_number_of_layers(number: int) -> None:
    arguments = function_arguments("policy_logits")
    layers = linear_layers([STATE, *[4] * number])
    with pytest.raises(ValueError, match=r"layers must .* got \d layers"):
        score_ext.policy_logits(**{**arguments, "layers": layers})


def test_messages_say_what_was_given() -> None:
    tokens = torch.zeros(22, 8)
    with pytest.raises(ValueError, match=r"score.surprise: tokens_per_frame must divide .* got 5 for video 0 of 12"):
        score_ext.surprise(tokens, int32(0, 12, 22), int32(5, 5))
    with pytest.raises(ValueError, match=r"score.select: scores must be float32 \[num_tokens\], got float32 \[22, 8\]"):
        score_ext.select(tokens, int32(0, 22), int32(1), 1)
    with pytest.raises(ValueError, match="selection must be 'topk' or 'systematic', got 'best'"):
        score_ext.select(tokens[:, 0], int32(0, 22), int32(1), 1, selection="best")
    with pytest.raises(TypeError, match="tokens must be float32 or float16 or bfloat16, got int64"):
        score_ext.surprise(tokens.long(), int32(0, 22), int32(11))
