"""How the ops run on a GPU: streams, graphs, compilation, no waiting, devices, sizes over 2^31."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from batches import LAYOUTS, Layout, generator, int32, int64
from cases import DIFFERENTIABLE, OPS, call, op_arguments, tensor_arguments
from devices import CUDA, assert_agree, moved
from torch import Tensor

import score_ext
from score_ext import reference

LONG_SLEEP = 2_000_000_000  # GPU cycles: about a second
LAYOUT = Layout(((16, 30), (5, 77)))


def arguments_of(op: str) -> dict[str, Any]:
    """A call whose float32 tokens are rows of 16-byte vectors, as those of every real model are."""
    return op_arguments(width=16)[op]


def compress_arguments(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    keep, total = LAYOUT.keep(0)
    return LAYOUT.tokens(512, torch.bfloat16, seed), LAYOUT.cu_seqlens, LAYOUT.tokens_per_frame, keep, total


@pytest.mark.parametrize("selection", ["topk", "systematic"])
@pytest.mark.parametrize("scored", [False, True])
def test_compress_in_a_cuda_graph(scored: bool, selection: str) -> None:
    tokens, *rest = moved(compress_arguments(0))
    scores = moved(LAYOUT.scores(0)) if scored else None
    score_ext.compress(tokens, *rest, scores=scores, selection=selection)  # loads the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = score_ext.compress(tokens, *rest, scores=scores, selection=selection)
    for seed in (1, 2, 3):
        tokens.copy_(compress_arguments(seed)[0])
        if scores is not None:
            scores.copy_(LAYOUT.scores(seed))
        graph.replay()
        expected = score_ext.compress(tokens, *rest, scores=scores, selection=selection)
        for mine, eager in zip(captured, expected, strict=True):
            assert torch.equal(mine, eager)


@pytest.mark.parametrize("op", [op for op in OPS if op != "policy_logits"])
def test_op_in_a_cuda_graph(op: str) -> None:
    arguments = arguments_of(op)
    on_gpu = moved(arguments)
    call(op, on_gpu)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call(op, on_gpu)
    graph.replay()
    assert_agree(op, captured, call(op, arguments))


@pytest.mark.parametrize("op", OPS)
def test_second_stream(op: str) -> None:
    """The input is written, late, on that stream: a kernel on any other would read what was there before."""
    arguments = arguments_of(op)
    names = [name for name in tensor_arguments(arguments) if arguments[name].is_floating_point()]
    names = names or tensor_arguments(arguments)[-1:]
    on_gpu = moved(arguments)
    late = {name: on_gpu[name].clone() for name in names}
    for name in names:
        on_gpu[name].zero_()
    call(op, on_gpu)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LONG_SLEEP // 10)
        for name in names:
            on_gpu[name].copy_(late[name])
        results = call(op, on_gpu)
    stream.synchronize()
    assert_agree(op, results, call(op, arguments))


@pytest.mark.parametrize("op", OPS)
def test_nothing_waits_for_the_gpu(op: str) -> None:
    on_gpu = moved(arguments_of(op))
    call(op, on_gpu)
    torch.cuda.synchronize()
    busy = torch.cuda.Event()
    torch.cuda._sleep(LONG_SLEEP)
    busy.record()
    torch.cuda.set_sync_debug_mode("error")
    try:
        start = time.perf_counter()
        call(op, on_gpu)
        seconds = time.perf_counter() - start
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not busy.query(), f"the call returned only after the GPU was done ({seconds:.3f} s)"
    torch.cuda.synchronize()


def test_host_threads_with_rows_of_two_widths() -> None:
    """Both widths go through one kernel, with as many threads as each needs."""
    calls = {width: moved((LAYOUT.tokens(width, torch.bfloat16), LAYOUT.cu_seqlens, LAYOUT.tokens_per_frame))
             for width in (1024, 2048)}  # fmt: skip
    expected = {width: score_ext.surprise(*moved(call, torch.device("cpu"))) for width, call in calls.items()}
    failures: list[BaseException] = []

    def work(width: int) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(2000):
                    found = score_ext.surprise(*calls[width])
                torch.testing.assert_close(found.cpu(), expected[width], rtol=2e-4, atol=2e-5)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(width,)) for width in (1024, 2048) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


@pytest.mark.parametrize("op", OPS)
def test_compiles_without_a_graph_break(op: str) -> None:
    arguments = arguments_of(op)
    others = {name: value for name, value in arguments.items() if not isinstance(value, Tensor)}

    @torch.compile(fullgraph=True)
    def compiled(tensors: dict[str, Tensor], others: dict[str, Any]) -> tuple[Tensor, ...]:
        return call(op, {**tensors, **others})

    torch._dynamo.reset()
    tensors = moved({name: arguments[name] for name in tensor_arguments(arguments)})
    assert_agree(op, compiled(tensors, others), call(op, arguments))


@pytest.mark.parametrize("op", sorted(DIFFERENTIABLE))
def test_gradient_waits_for_nothing(op: str) -> None:
    name, outputs = DIFFERENTIABLE[op]
    arguments = moved(arguments_of(op))
    arguments[name].requires_grad_()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(op, arguments)[outputs[0]].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert arguments[name].grad.isfinite().all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("op", OPS)
def test_other_device_than_the_current_one(op: str) -> None:
    arguments = arguments_of(op)
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    results = call(op, moved(arguments, last))
    assert all(result.device == last for result in results)
    assert torch.cuda.current_device() == 0
    assert_agree(op, results, call(op, arguments))


@pytest.mark.parametrize("op", OPS)
def test_tensors_on_two_devices_are_refused(op: str) -> None:
    arguments = arguments_of(op)
    names = tensor_arguments(arguments)
    if len(names) > 1:
        with pytest.raises((RuntimeError, ValueError)):
            call(op, {**moved(arguments), names[-1]: arguments[names[-1]]})


# ---- over 2^31 elements ---------------------------------------------------------------------------------------------

WIDTH = 3584
FRAMES, PER_FRAME = 768, 784  # 602,112 tokens, 2.16e9 elements


def needs_memory(gigabytes: float) -> None:
    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < gigabytes * 1e9:
        pytest.skip(f"needs {gigabytes} GB of free GPU memory")


@pytest.fixture(scope="module")
def huge() -> Tensor:
    """bfloat16 [FRAMES * PER_FRAME, WIDTH], 4.3 GB."""
    needs_memory(20)
    random = torch.Generator(device=CUDA).manual_seed(0)
    return torch.randn(FRAMES * PER_FRAME, WIDTH, device=CUDA, dtype=torch.bfloat16, generator=random)


def test_huge_surprise_and_compress(huge: Tensor) -> None:
    length = len(huge)
    cu, frames, keep = moved((int32(0, length), int32(PER_FRAME), int32(1000)))
    found = score_ext.surprise(huge, cu, frames)
    for begin in (PER_FRAME, length // 2, length - 5000):
        x, p = huge[begin : begin + 5000].float(), huge[begin - PER_FRAME : begin - PER_FRAME + 5000].float()
        expected = 1 - torch.nn.functional.cosine_similarity(x, p)
        torch.testing.assert_close(found[begin : begin + 5000], expected, rtol=1e-4, atol=1e-5)
    scores = torch.zeros(length, device=CUDA)
    scores[-1000:] = 1
    kept, index, _ = score_ext.compress(huge, cu, frames, keep, 1000, scores=scores)
    assert index.tolist() == list(range(length - 1000, length))
    assert torch.equal(kept, huge[-1000:])


def test_huge_policy_state(huge: Tensor) -> None:
    length = len(huge)
    cu, frames = moved((int32(0, length), int32(PER_FRAME)))
    found = score_ext.policy_state(huge, cu, frames, None, length - 100, length, torch.float32)
    x, p = huge[-100:].float(), huge[-100 - PER_FRAME : -PER_FRAME].float()
    expected = torch.cat([torch.nn.functional.layer_norm(each, (WIDTH,)) for each in (x, x - p)], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_huge_output_of_gather(huge: Tensor) -> None:
    index = torch.arange(len(huge) - 1, -1, -1, device=CUDA)
    found = score_ext.gather(huge, index)
    assert torch.equal(found[:100], huge[-100:].flip(0))
    assert torch.equal(found[-100:], huge[:100].flip(0))


def test_gather_from_more_rows_than_int32_counts() -> None:
    needs_memory(8)
    rows = torch.zeros(2**31 + 100, dtype=torch.uint8, device=CUDA)
    rows[-1], rows[5] = 7, 3
    index = torch.tensor([2**31 + 99, 5, 2**31], device=CUDA)
    assert score_ext.gather(rows, index).tolist() == [7, 3, 0]


def test_samples_of_more_tokens_than_int32_counts() -> None:
    needs_memory(40)
    length, samples = 2_000_000, 1100
    logits = torch.randn(length, generator=generator(0))
    cu, seed = moved((int32(0, length), int64(4)))
    mask, _, count = score_ext.sample_bernoulli(moved(logits), cu, samples, seed)
    words = reference._random_words(length, 4, "bernoulli", samples - 1, 0)
    expected = (words >> 2) < reference._sigmoid_fixed(logits)
    assert torch.equal(mask[-1].cpu(), expected)
    assert int(count[-1]) == int(expected.sum())
    del mask
    index, order = score_ext.gumbel_topk(moved(logits), cu, moved(int32(10)), samples, seed, 10)
    words = reference._random_words(length, 4, "gumbel_topk", samples - 1, 0)
    drawn = reference._by_rank(logits + reference._gumbel(words))[:10]
    assert torch.equal(order[-1].cpu(), drawn)
    assert torch.equal(index[-1].cpu(), drawn.sort().values)


def test_empty_layout_launches_nothing() -> None:
    arguments = op_arguments(LAYOUTS["only_empty"])
    for op in OPS:
        call(op, moved(arguments[op]))
    torch.cuda.synchronize()
