"""Every op on the GPU gives what it gives on the CPU: to the bit where tokens are picked, to rounding elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from batches import LAYOUTS, SCORE_KINDS, TOKEN_DTYPES, Layout, generator, int32, int64, scores_of_kind
from cases import DIFFERENTIABLE, OPS, call, op_arguments
from devices import ABSOLUTE, CUDA, assert_agree, moved

import score_ext
from score_ext import reference

SELECTIONS = ("topk", "systematic")
WIDTHS = (1, 7, 8, 64, 257, 776, 1152, 2056, 3584, 12_288, 12_296)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPS)
def test_op(op: str, layout: str) -> None:
    arguments = op_arguments(LAYOUTS[layout])[op]
    assert_agree(op, call(op, moved(arguments)), call(op, arguments))


@pytest.mark.parametrize("op", sorted(DIFFERENTIABLE))
def test_gradient(op: str) -> None:
    name, outputs = DIFFERENTIABLE[op]
    gradients = []
    for device in (torch.device("cpu"), CUDA):
        arguments = moved(op_arguments()[op], device)
        arguments[name].requires_grad_()
        results = [call(op, arguments)[place] for place in outputs]
        weights = [moved(torch.randn(result.shape, generator=generator(0)), device) for result in results]
        gradients.append(torch.autograd.grad(results, arguments[name], weights)[0].cpu())
    atol = ABSOLUTE.get(op, 1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=atol)


@pytest.mark.parametrize("dtype", TOKEN_DTYPES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_surprise_and_state_of_any_width(width: int, dtype: torch.dtype) -> None:
    layout = LAYOUTS["ragged"]
    tokens = layout.tokens(width, dtype)
    tokens[layout.spans()[1].stop - 1] = 0
    tokens[2] = math.nan
    tokens[7 + 3] = tokens[3]
    batch = (tokens, layout.cu_seqlens, layout.tokens_per_frame)
    for metric in ("cosine", "l2"):
        found = score_ext.surprise(*moved(batch), metric=metric).cpu()
        torch.testing.assert_close(
            found, score_ext.surprise(*batch, metric=metric), rtol=1e-4, atol=1e-5, equal_nan=True
        )
        assert found[7 + 3] == 0, "what did not move has no surprise, exactly"
    for state_dtype in TOKEN_DTYPES:
        arguments = (None, 1, layout.length, state_dtype)
        found = score_ext.policy_state(*moved(batch), *arguments).cpu().float()
        expected = score_ext.policy_state(*batch, *arguments).float()
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2, equal_nan=True)


@pytest.mark.parametrize("dtype", TOKEN_DTYPES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_relative_measures_of_any_width(width: int, dtype: torch.dtype) -> None:
    # a tile of four frames and of two, frames of many columns, one row, one token, an empty video
    for videos in ([(40, 24, 24)], [(5, 3, 4), (0, 2, 2), (3, 6, 50), (4, 1, 1), (9, 1, 300)]):
        if width > 4000 and len(videos) == 1:
            continue  # half a gigabyte of tokens on the CPU
        random = generator(width)
        frames = [torch.randn(1, r * c, width, generator=random).expand(t, -1, -1) for t, r, c in videos]
        tokens = torch.cat([frame.flatten(0, 1) for frame in frames])
        tokens = (tokens + 0.5 * torch.randn(tokens.shape, generator=random)).to(dtype)
        cu = torch.tensor([0, *(t * r * c for t, r, c in videos)]).cumsum(0).to(torch.int32)
        per_frame, columns = int32(*(r * c for _, r, c in videos)), int32(*(c for _, _, c in videos))
        arguments = (tokens, cu, per_frame, columns, sum(t for t, _, _ in videos))
        expected = torch.ops.score.relative_measures(*arguments)
        found = torch.ops.score.relative_measures(*moved(arguments))
        # a cosine to the frame's mean is rounding where that is the video's
        atol = torch.full((13,), 5e-6 if width > 1 else 1e-3).index_fill(0, torch.tensor([9]), 5e-4)
        difference = (found[0].cpu() - expected[0]).abs()
        assert bool((difference <= atol + 1e-5 * expected[0].abs()).all()), difference.amax(0)
        # the reciprocal of a deviation is off by as much more as that is smaller than 1
        slack = (1e-3 if width > 1 else 1e-2) * expected[1][..., 1].square()
        assert bool(((found[1].cpu() - expected[1])[..., 1].abs() <= slack).all())


# The scores beside them in a state amplify rounding up to a thousand times; cosines tell whether it is only that.
@pytest.mark.parametrize("dtype", TOKEN_DTYPES, ids=str)
@pytest.mark.parametrize(("width", "noise"), [(40, 0.5), (512, 0.01), (3584, 0.5), (3584, 0.02)])
def test_cosines_equal_float64(width: int, noise: float, dtype: torch.dtype) -> None:
    frames, rows, columns = 12, 9, 11
    random = generator(width)
    still = torch.randn(1, rows * columns, width, generator=random)
    moving = torch.randn(frames, rows * columns, width, generator=random)
    tokens = (still + noise * moving).flatten(0, 1).to(dtype)
    arguments = (tokens, int32(0, len(tokens)), int32(rows * columns), int32(columns), frames)
    expected = reference.relative_state(*arguments)
    found = score_ext.relative_state(*moved(arguments)).cpu()
    cosines = [*range(7), *range(25, 30)]  # 7 in time; behind their scores and flags 5 of appearance
    torch.testing.assert_close(found[:, cosines], expected[:, cosines], rtol=0, atol=2e-6)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("kind", SCORE_KINDS)
@pytest.mark.parametrize("length", [1, 1023, 4096, 40_000, 1_000_003])
def test_select(length: int, kind: str, selection: str) -> None:
    scores = scores_of_kind(kind, length)
    cu = int32(0, length // 3, length // 3, length)
    for share in (0.0, 0.1, 0.5, 1.0):
        keep = int32(int(length // 3 * share), 0, math.ceil((length - length // 3) * share))
        total = int(keep.sum())
        expected = score_ext.select(scores, cu, keep, total, selection=selection, offset=0.25)
        found = score_ext.select(*moved((scores, cu, keep)), total, selection=selection, offset=0.25)
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("kind", SCORE_KINDS)
@pytest.mark.parametrize("length", [1, 1023, 40_000, 300_001])
def test_gumbel_topk(length: int, kind: str) -> None:
    logits, cu = scores_of_kind(kind, length), int32(0, length // 4, length)
    for share, seed in ((0.01, int64(5)), (0.3, int64(-1, 2**40)), (1.0, int64(0))):
        keep = int32(int(length // 4 * share), math.ceil((length - length // 4) * share))
        arguments = (logits, cu, keep, 3, seed, int(keep.sum()))
        expected, found = score_ext.gumbel_topk(*arguments), score_ext.gumbel_topk(*moved(arguments))
        assert torch.equal(found[0].cpu(), expected[0])
        assert torch.equal(found[1].cpu(), expected[1])


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_sample_bernoulli(kind: str) -> None:
    arguments = (scores_of_kind(kind, 100_003), int32(0, 77, 77, 100_003), 4, int64(9))
    found = score_ext.sample_bernoulli(*moved(arguments))
    assert_agree("sample_bernoulli", found, score_ext.sample_bernoulli(*arguments))


def test_plackett_luce_log_prob_of_a_long_video() -> None:
    for scale in (1.0, 30.0, 1000.0):
        logits = torch.randn(50_000, generator=generator(1)) * scale
        cu, keep = int32(0, 50_000), int32(5000)
        _, order = score_ext.gumbel_topk(logits, cu, keep, 2, int64(3), 5000)
        grad = torch.randn(2, 1, generator=generator(2))
        packed = (logits, cu, keep, order)
        torch.testing.assert_close(
            score_ext.plackett_luce_log_prob(*moved(packed)).cpu(), score_ext.plackett_luce_log_prob(*packed)
        )
        found = torch.ops.score.plackett_luce_log_prob_backward(*moved((grad, *packed))).cpu()
        expected = torch.ops.score.plackett_luce_log_prob_backward(grad, *packed)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [*TOKEN_DTYPES, torch.bool, torch.int8, torch.int64, torch.complex64], ids=str)
def test_gather(dtype: torch.dtype) -> None:
    for shape in ((), (1,), (3,), (2, 4), (17,), (3584,), (70_001,)):
        tokens = torch.randint(0, 2, (50, *shape), generator=generator(0)).to(dtype)
        index = torch.randint(0, 49, (75,), generator=generator(1))
        for source in (tokens, tokens[1:]):  # the second one's rows may start anywhere
            assert torch.equal(score_ext.gather(*moved((source, index))).cpu(), source[index])
        view = moved(tokens)[1:]
        assert torch.equal(score_ext.gather(view, moved(index)).cpu(), tokens[1:][index])


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("dtype", TOKEN_DTYPES, ids=str)
def test_compress(dtype: torch.dtype, selection: str) -> None:
    layout = Layout(((12, 196), (0, 1), (64, 50)))
    tokens, (keep, total) = layout.tokens(256, dtype), layout.keep(1)
    arguments = (tokens, layout.cu_seqlens, layout.tokens_per_frame, keep, total)
    scores = score_ext.surprise(*moved(arguments[:3]))
    kept, index, cu_kept = score_ext.compress(*moved(arguments), selection=selection)
    # The surprise is the CPU's only to rounding; what follows from it is exact.
    assert torch.equal(index.cpu(), score_ext.select(scores.cpu(), layout.cu_seqlens, keep, total, selection=selection))
    assert torch.equal(kept.cpu(), tokens[index.cpu()])
    assert cu_kept.tolist() == [0, *keep.cumsum(0).tolist()]


def test_wrong_values_are_survived() -> None:
    """They cannot be looked at without waiting for the GPU: results mean nothing, but nothing breaks."""
    length, total = 1000, 600
    scores, tokens = torch.randn(length, device=CUDA), torch.randn(length, 64, device=CUDA)
    for cu in (int32(0, 500, 20, 1000), int32(-5, 7, 2_000_000_000, 60), int32(0, 0, 0, 0)):
        for keep in (int32(-4, 2**31 - 1, 9), int32(1, 1, 1)):
            packed, frames = moved((cu, keep)), moved(int32(0, -7, 2**31 - 1))
            for selection in SELECTIONS:
                index = score_ext.select(scores, *packed, total, selection=selection)
                assert bool(((index >= 0) & (index < length)).all())
                score_ext.compress(tokens, packed[0], frames, packed[1], total, selection=selection)
            _, order = score_ext.gumbel_topk(scores, *packed, 2, moved(int64(1)), total)
            score_ext.plackett_luce_log_prob(scores, *packed, order)
            score_ext.sample_bernoulli(scores, packed[0], 2, moved(int64(1)))
            score_ext.policy_state(tokens, packed[0], frames, None, 0, length, torch.float32)
            for num_frames in (0, 7, length):
                torch.ops.score.relative_state(tokens, packed[0], frames, frames, num_frames)
    rows = score_ext.gather(tokens, moved(int64(-1, length, 2**62, 5)))
    assert torch.equal(rows[3], tokens[5]) and not rows[:3].any()
    torch.cuda.synchronize()
