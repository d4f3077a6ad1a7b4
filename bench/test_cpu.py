"""CPU benchmarks under pytest-benchmark: ours beside eager torch, torch.compile and the rule as engines write it.

Every group holds everything that does the same job on the same input; `make bench` runs them and makes the table.
A plain copy in the same run gives the machine's bandwidth, and with it the floor: the time that moving the bytes takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import score_ext
from score_video import Compressor, PackedVideos

FRAMES, PER_FRAME, WIDTH = 64, 196, 3584
LENGTH = FRAMES * PER_FRAME
KEEP = score_ext.budget.keep_count(FRAMES, PER_FRAME, 0.1)
SCORES = 1_000_000
SCORES_KEEP = SCORES // 10

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


VIDEO = (int32(0, LENGTH), int32(PER_FRAME))  # cu_seqlens, tokens_per_frame
ONE_VIDEO = int32(0, SCORES)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=DTYPES)
def tokens(request: pytest.FixtureRequest) -> Tensor:
    """A video in which half of the places stand still but for small noise, [LENGTH, WIDTH]."""
    generator = torch.Generator().manual_seed(0)
    still = torch.randn(PER_FRAME, WIDTH, generator=generator)
    video = still + 0.05 * torch.randn(FRAMES, PER_FRAME, WIDTH, generator=generator)
    video[:, ::2] += torch.randn(FRAMES, PER_FRAME // 2, WIDTH, generator=generator)
    return video.view(LENGTH, WIDTH).to(DTYPES[request.param])


def dtype_name(tokens: Tensor) -> str:
    return str(tokens.dtype).removeprefix("torch.")


# ---- baselines ------------------------------------------------------------------------------------------------------


def torch_surprise(tokens: Tensor) -> Tensor:
    """With torch's own cosine_similarity, as most code writes it."""
    video = tokens.view(FRAMES, PER_FRAME, WIDTH)
    similarity = torch.nn.functional.cosine_similarity(video[1:].float(), video[:-1].float(), dim=-1)
    return torch.cat([similarity.new_full((1, PER_FRAME), math.inf), 1 - similarity]).view(-1)


def torch_surprise_sums(tokens: Tensor) -> Tensor:
    """The same from three sums, each norm only once: easier to fuse."""
    video = tokens.view(FRAMES, PER_FRAME, WIDTH).float()
    products = (video[1:] * video[:-1]).sum(-1)
    squares = video.square().sum(-1)
    similarity = products / (squares[1:] * squares[:-1]).sqrt()
    return torch.cat([similarity.new_full((1, PER_FRAME), math.inf), 1 - similarity]).view(-1)


def torch_compress(tokens: Tensor, surprise: Callable[[Tensor], Tensor]) -> Tensor:
    index = surprise(tokens).topk(KEEP, sorted=False).indices.sort().values
    return tokens.index_select(0, index)


def engine_compress(tokens: Tensor, surprise: Callable[[Tensor], Tensor]) -> Tensor:
    """Argsort, a boolean mask of what is kept, and indexing with it: the rule as serving engines write it."""
    order = torch.argsort(surprise(tokens), descending=True, stable=True)
    mask = torch.zeros(LENGTH, dtype=torch.bool)
    mask[order[:KEEP]] = True
    return tokens[mask]


def torch_policy(tokens: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The policy as an nn.Module would compute it, the whole state in memory."""
    video = tokens.view(FRAMES, PER_FRAME, WIDTH).float()
    residual = torch.cat([torch.zeros_like(video[:1]), video[1:] - video[:-1]])
    parts = [torch.nn.functional.layer_norm(part, (WIDTH,)) for part in (video, residual)]
    x = torch.cat(parts, dim=-1).view(LENGTH, 2 * WIDTH)
    for weight, bias in layers[:-1]:
        x = torch.nn.functional.gelu(torch.nn.functional.linear(x, weight, bias))
    return torch.nn.functional.linear(x, *layers[-1]).view(-1)


def torch_select(scores: Tensor) -> Tensor:
    return scores.topk(SCORES_KEEP, sorted=False).indices.sort().values


def torch_gumbel_topk_with_log_prob(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Gumbel top-k and the log-probability of the draw."""
    gumbel = -torch.log(torch.empty_like(logits).exponential_())
    order = (logits + gumbel).topk(SCORES_KEEP).indices  # sorted: the order of drawing
    drawn = logits[order]
    rest = logits.index_fill(0, order, -math.inf).logsumexp(0, keepdim=True)
    remaining = torch.cat([rest, drawn.flip(0)]).logcumsumexp(0)[1:].flip(0)
    return order.sort().values, (drawn - remaining).sum()


def compiled(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, mode=mode)


# ---- benchmarks -----------------------------------------------------------------------------------------------------

COMPILE_MODES = ("default", "max-autotune-no-cudagraphs")


@pytest.fixture
def timed(benchmark: Any) -> Callable[..., None]:
    """Times a call: checked and warmed up (compilation included), then a fixed number of rounds of one call each."""

    def run(
        group: str,
        function: Callable[..., Any],
        *args: Any,
        rounds: int = 15,
        check: Callable[[Any], None] | None = None,
    ) -> None:
        benchmark.group = group
        with torch.inference_mode():  # as engines run
            output = function(*args)
            if check is not None:
                check(output)
            benchmark.pedantic(function, args=args, rounds=rounds, warmup_rounds=2, iterations=1)

    return run


# What a rival makes is compared with what ours makes before it is timed.


def check_surprise(tokens: Tensor) -> Callable[[Tensor], None]:
    return lambda output: torch.testing.assert_close(output, score_ext.surprise(tokens, *VIDEO), rtol=1e-3, atol=1e-4)


def check_kept(tokens: Tensor) -> Callable[[Tensor], None]:
    """The same rows but for one in a thousand, whose surprise may have been rounded to the other side."""
    ours = score_ext.compress(tokens, *VIDEO, int32(KEEP), KEEP).kept

    def check(output: Tensor) -> None:
        assert output.shape == ours.shape
        found = torch.isin(output[:, :8].double().sum(1), ours[:, :8].double().sum(1))
        assert found.float().mean() > 0.999

    return check


def check_logits(tokens: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Callable[[Tensor], None]:
    expected = score_ext.policy_logits(tokens, *VIDEO, layers)
    return lambda output: torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-3)


def check_selected(scores: Tensor) -> Callable[[Tensor], None]:
    return lambda output: torch.testing.assert_close(
        output, score_ext.select(scores, ONE_VIDEO, int32(SCORES_KEEP), SCORES_KEEP, "topk")
    )


def check_draw(output: tuple[Tensor, Tensor]) -> None:
    """Another draw than ours, of the same form."""
    assert output[0].shape == (SCORES_KEEP,) and bool((output[0].diff() > 0).all()) and bool(output[1].isfinite())


SQUARE = 1024  # side of the product whose speed is taken for the machine's
HIDDEN = 64


def test_square_product(timed: Callable[..., None]) -> None:
    """The speed of torch's products where nothing holds them up: what is made of products cannot be faster."""
    square = torch.randn(SQUARE, SQUARE, generator=torch.Generator().manual_seed(0))
    timed("square product", torch.mm, square, square)


def test_copy(timed: Callable[..., None], tokens: Tensor) -> None:
    target = torch.empty_like(tokens)
    timed(f"copy {dtype_name(tokens)}", target.copy_, tokens)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_surprise_ours(timed: Callable[..., None], tokens: Tensor, metric: str) -> None:
    timed(f"surprise {dtype_name(tokens)}", score_ext.surprise, tokens, *VIDEO, metric)


@pytest.mark.parametrize("formula", [torch_surprise, torch_surprise_sums])
def test_surprise_eager(timed: Callable[..., None], tokens: Tensor, formula: Callable[[Tensor], Tensor]) -> None:
    timed(f"surprise {dtype_name(tokens)}", formula, tokens, rounds=5, check=check_surprise(tokens))


@pytest.mark.parametrize("mode", COMPILE_MODES)
@pytest.mark.parametrize("formula", [torch_surprise, torch_surprise_sums])
def test_surprise_compile(
    timed: Callable[..., None], tokens: Tensor, formula: Callable[[Tensor], Tensor], mode: str
) -> None:
    timed(f"surprise {dtype_name(tokens)}", compiled(formula, mode), tokens, check=check_surprise(tokens))


def test_compress_ours(timed: Callable[..., None], tokens: Tensor) -> None:
    timed(f"compress {dtype_name(tokens)}", score_ext.compress, tokens, *VIDEO, int32(KEEP), KEEP)


def test_compress_default_policy(timed: Callable[..., None], tokens: Tensor) -> None:
    """What people run: the policy of the package, its selection, and the rows."""
    compressor = Compressor()
    videos = PackedVideos.from_frames([tokens.view(FRAMES, 14, PER_FRAME // 14, WIDTH)])

    def choose() -> Tensor:
        fresh = replace(videos)  # without what it keeps of the time before
        return score_ext.gather(fresh.tokens, compressor.select(fresh).index)

    timed(f"compress {dtype_name(tokens)}", choose, rounds=5)


@pytest.mark.parametrize("rule", [torch_compress, engine_compress])
@pytest.mark.parametrize("formula", [torch_surprise, torch_surprise_sums])
def test_compress_eager(
    timed: Callable[..., None], tokens: Tensor, rule: Callable[..., Tensor], formula: Callable[[Tensor], Tensor]
) -> None:
    timed(f"compress {dtype_name(tokens)}", rule, tokens, formula, rounds=5, check=check_kept(tokens))


@pytest.mark.parametrize("mode", COMPILE_MODES)
@pytest.mark.parametrize("formula", [torch_surprise, torch_surprise_sums])
def test_compress_compile(
    timed: Callable[..., None], tokens: Tensor, formula: Callable[[Tensor], Tensor], mode: str
) -> None:
    timed(f"compress {dtype_name(tokens)}", compiled(torch_compress, mode), tokens, formula, check=check_kept(tokens))


@pytest.fixture(scope="module")
def layers() -> list[tuple[Tensor, Tensor]]:
    """Two hidden layers on [x ; dX], float32."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(HIDDEN, 2 * WIDTH), (HIDDEN, HIDDEN), (1, HIDDEN)]
    return [(torch.randn(*shape, generator=generator) / shape[1] ** 0.5, torch.zeros(shape[0])) for shape in shapes]


def test_policy_ours(timed: Callable[..., None], tokens: Tensor, layers: list[tuple[Tensor, Tensor]]) -> None:
    timed(f"policy_logits {dtype_name(tokens)}", score_ext.policy_logits, tokens, *VIDEO, layers, rounds=5)


def test_policy_eager(timed: Callable[..., None], tokens: Tensor, layers: list[tuple[Tensor, Tensor]]) -> None:
    timed(
        f"policy_logits {dtype_name(tokens)}",
        torch_policy,
        tokens,
        layers,
        rounds=5,
        check=check_logits(tokens, layers),
    )


def test_policy_first_product(timed: Callable[..., None], tokens: Tensor, layers: list[tuple[Tensor, Tensor]]) -> None:
    """The first layer's product alone, of a state that is there, in the dtype of the tokens."""
    state, weight = torch.cat([tokens, tokens], dim=1), layers[0][0].to(tokens.dtype).T
    timed(f"policy_logits {dtype_name(tokens)}", torch.mm, state, weight, rounds=5)


@pytest.mark.parametrize("mode", COMPILE_MODES)
def test_policy_compile(
    timed: Callable[..., None], tokens: Tensor, layers: list[tuple[Tensor, Tensor]], mode: str
) -> None:
    check = check_logits(tokens, layers)
    timed(f"policy_logits {dtype_name(tokens)}", compiled(torch_policy, mode), tokens, layers, rounds=5, check=check)


def test_gather_ours(timed: Callable[..., None], tokens: Tensor) -> None:
    index = torch.randperm(LENGTH)[:KEEP].sort().values
    timed(f"gather {dtype_name(tokens)}", score_ext.gather, tokens, index, rounds=50)


def test_gather_index_select(timed: Callable[..., None], tokens: Tensor) -> None:
    index = torch.randperm(LENGTH)[:KEEP].sort().values
    check = partial(torch.testing.assert_close, expected=score_ext.gather(tokens, index))
    timed(f"gather {dtype_name(tokens)}", torch.index_select, tokens, 0, index, rounds=50, check=check)


@pytest.fixture(scope="module")
def scores() -> Tensor:
    return torch.randn(SCORES, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("selection", ["topk", "systematic"])
def test_select_ours(timed: Callable[..., None], scores: Tensor, selection: str) -> None:
    timed("select", score_ext.select, scores, ONE_VIDEO, int32(SCORES_KEEP), SCORES_KEEP, selection, rounds=30)


def test_select_eager(timed: Callable[..., None], scores: Tensor) -> None:
    timed("select", torch_select, scores, rounds=30, check=check_selected(scores))


@pytest.mark.parametrize("mode", COMPILE_MODES)
def test_select_compile(timed: Callable[..., None], scores: Tensor, mode: str) -> None:
    timed("select", compiled(torch_select, mode), scores, rounds=30, check=check_selected(scores))


def test_gumbel_topk_with_log_prob_ours(timed: Callable[..., None], scores: Tensor) -> None:
    seed = torch.tensor([1])
    timed(
        "gumbel_topk_with_log_prob",
        score_ext.gumbel_topk_with_log_prob,
        scores,
        ONE_VIDEO,
        int32(SCORES_KEEP),
        1,
        seed,
        SCORES_KEEP,
        rounds=30,
    )


def test_gumbel_topk_with_log_prob_eager(timed: Callable[..., None], scores: Tensor) -> None:
    timed("gumbel_topk_with_log_prob", torch_gumbel_topk_with_log_prob, scores, rounds=30, check=check_draw)


@pytest.mark.parametrize("mode", COMPILE_MODES)
def test_gumbel_topk_with_log_prob_compile(timed: Callable[..., None], scores: Tensor, mode: str) -> None:
    timed(
        "gumbel_topk_with_log_prob",
        compiled(torch_gumbel_topk_with_log_prob, mode),
        scores,
        rounds=30,
        check=check_draw,
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_compress(timed: Callable[..., None], tokens: Tensor, threads: int) -> None:
    torch.set_num_threads(threads)
    timed(f"threads {dtype_name(tokens)}", score_ext.compress, tokens, *VIDEO, int32(KEEP), KEEP)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_copy(timed: Callable[..., None], tokens: Tensor, threads: int) -> None:
    torch.set_num_threads(threads)
    target = torch.empty_like(tokens)
    timed(f"threads {dtype_name(tokens)}", target.copy_, tokens)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("selection", ["topk", "systematic"])
def test_threads_select(timed: Callable[..., None], scores: Tensor, selection: str, threads: int) -> None:
    torch.set_num_threads(threads)
    timed("threads scores", score_ext.select, scores, ONE_VIDEO, int32(SCORES_KEEP), SCORES_KEEP, selection, rounds=30)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_gumbel_topk_with_log_prob(timed: Callable[..., None], scores: Tensor, threads: int) -> None:
    torch.set_num_threads(threads)
    seed = torch.tensor([1])
    timed(
        "threads scores",
        score_ext.gumbel_topk_with_log_prob,
        scores,
        ONE_VIDEO,
        int32(SCORES_KEEP),
        8,
        seed,
        SCORES_KEEP,
    )
