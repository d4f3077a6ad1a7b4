"""What is timed: the ops at 40,000 x 3584 bfloat16, as a tower leaves a video for a model of 7 billion parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

import score_ext
from bench.gpu import rivals
from bench.gpu.rivals import FRAMES, KEEP, LENGTH, PER_FRAME, SAMPLES, WIDTH
from bench.gpu.timing import Measurements
from score_video import diverse
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy, SurprisePolicyConfig, pretrained_policy

TOKEN_INPUTS = 4  # of 287 MB each
SCORE_NUMBERS = 20_480_000  # in all, 82 MB: more than the L2 cache holds
MANY = 1_000_000  # scores of a long video


def video(seed: int, frames: int = FRAMES, per_frame: int = PER_FRAME, width: int = WIDTH) -> Tensor:
    """A video in which half of the places stand still but for small noise, bfloat16 [frames * per_frame, width]."""
    random = torch.Generator(device="cuda").manual_seed(seed)
    still = torch.randn(per_frame, width, device="cuda", generator=random)
    tokens = still + 0.05 * torch.randn(frames, per_frame, width, device="cuda", generator=random)
    tokens[:, ::2] += torch.randn(frames, (per_frame + 1) // 2, width, device="cuda", generator=random)
    return tokens.view(frames * per_frame, width).bfloat16()


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device="cuda")


def measure_copy(to: Measurements) -> None:
    one, other = (torch.randint(0, 255, (2**30,), dtype=torch.uint8, device="cuda") for _ in range(2))
    to.add("copy", "torch", lambda source, target: target.copy_(source), [(one, other), (other, one)], 2 * 2**30)


def measure_tokens(to: Measurements) -> None:
    """surprise, gather and compress."""
    tokens = [(video(seed),) for seed in range(TOKEN_INPUTS)]
    token_bytes, kept_bytes = LENGTH * WIDTH * 2, KEEP * WIDTH * 2
    cu, frames, keep = int32(0, LENGTH), int32(PER_FRAME), int32(KEEP)
    formulas = ("cosine_similarity", rivals.surprise), ("three sums", rivals.surprise_sums)

    def surprise(x: Tensor) -> Tensor:
        return score_ext.surprise(x, cu, frames)

    moved = token_bytes + LENGTH * 4
    to.add("surprise", "ours", surprise, tokens, moved)
    to.add("surprise", "ours, l2", lambda x: score_ext.surprise(x, cu, frames, "l2"), tokens, moved)
    for name, formula in formulas:
        like = surprise, rivals.close
        to.add("surprise", f"eager {name}", formula, tokens, moved, like=like)
        modes = ("default", "max-autotune-no-cudagraphs")
        to.add_compiled("surprise", name, formula, tokens, moved, like, modes)

    indices = [torch.randperm(LENGTH, device="cuda")[:KEEP].sort().values for _ in range(8)]
    gathers = [(tokens[number % TOKEN_INPUTS][0], index) for number, index in enumerate(indices)]
    moved = 2 * kept_bytes + KEEP * 8
    to.add("gather", "ours", score_ext.gather, gathers, moved)
    like = score_ext.gather, rivals.same
    to.add("gather", "torch index_select", lambda x, i: x.index_select(0, i), gathers, moved, like=like)

    def compress(x: Tensor) -> Tensor:
        return score_ext.compress(x, cu, frames, keep, KEEP)[0]

    moved = token_bytes + kept_bytes
    to.add("compress", "ours", compress, tokens, moved)
    for selection in ("topk", "systematic"):

        def given(x: Tensor, s: Tensor, selection: str = selection) -> Tensor:
            return score_ext.compress(x, cu, frames, keep, KEEP, scores=s, selection=selection)[0]

        scored = [(x, x[:, 0].float()) for (x,) in tokens]
        to.add("compress", f"ours, scores given, {selection}", given, scored, 2 * kept_bytes)
    for name, formula in formulas:

        def rule(x: Tensor, formula: Callable[[Tensor], Tensor] = formula) -> Tensor:
            return rivals.compress(x, formula)

        like = compress, rivals.nearly_the_same_rows
        to.add("compress", f"eager {name}", rule, tokens, moved, like=like)
        to.add_compiled("compress", name, rule, tokens, moved, like)
    to.add("compress", "engine rule", rivals.engine_compress, tokens, moved, graph=False, like=like)


@torch.no_grad()
def measure_policies(to: Measurements) -> None:
    """The pretrained policy, which is the default, and one over the tokens themselves, with random weights."""
    shapes = ((FRAMES, 25, 25), WIDTH, torch.bfloat16, TOKEN_INPUTS), ((32, 16, 16), 512, torch.float32, 16)
    pretrained = pretrained_policy().to("cuda")
    for grid, width, dtype, inputs in shapes:
        length = math.prod(grid)
        batches = [video(seed, grid[0], grid[1] * grid[2], width).to(dtype) for seed in range(inputs)]
        videos = [(PackedVideos.from_grids(tokens, [grid]),) for tokens in batches]
        moved = length * (width * dtype.itemsize + 4)
        size = f"{length} x {width}"

        def state(packed: PackedVideos) -> Tensor:
            sizes = packed.cu_seqlens, packed.tokens_per_frame, packed.columns
            return score_ext.relative_state(packed.tokens, *sizes, packed.num_frames)

        to.add(f"relative_state, {size}", "ours", state, videos, moved)
        to.add(f"default policy, {size}", "ours", pretrained, videos, moved)

        torch.manual_seed(0)
        residual = SurprisePolicy(SurprisePolicyConfig(token_width=width)).to("cuda")
        to.add(f"residual policy, {size}", "ours, float32", residual, videos, moved)
        to.add(f"residual policy, {size}", "ours, bfloat16", deepcopy(residual).bfloat16(), videos, moved)

        plain = [(packed.tokens.view(*grid, width),) for (packed,) in videos]
        cosines = (lambda x, packed=videos[0][0]: rivals.cosines_of(state(packed))), rivals.close
        to.add(f"relative_state, {size}", "eager cosines alone", rivals.cosines, plain, moved, like=cosines)
        to.add_compiled(f"relative_state, {size}", "cosines alone", rivals.cosines, plain, moved, cosines)


def measure_scores(to: Measurements) -> None:
    """Selecting and drawing."""
    for length in (LENGTH, MANY):
        _measure_scores(to, length)


def _measure_scores(to: Measurements, length: int) -> None:
    scores = [(torch.randn(length, device="cuda"),) for _ in range(SCORE_NUMBERS // length)]
    count = length // 10
    cu, keep, seed = int32(0, length), int32(count), torch.tensor([7], device="cuda")

    def topk(s: Tensor, selection: str = "topk") -> Tensor:
        return score_ext.select(s, cu, keep, count, selection=selection)

    job = f"select, {length}"
    to.add(job, "ours, topk", topk, scores)
    to.add(job, "ours, systematic", lambda s: topk(s, "systematic"), scores)
    like = topk, rivals.same
    to.add(job, "eager topk + sort", rivals.select, scores, like=like)
    to.add_compiled(job, "topk + sort", rivals.select, scores, like=like)

    few = scores[:64]
    draw, draw_with_log_prob = score_ext.gumbel_topk, score_ext.gumbel_topk_with_log_prob
    job = f"gumbel_topk x{SAMPLES}, {length}"
    to.add(job, "ours", lambda s: draw(s, cu, keep, SAMPLES, seed, count), few)
    to.add(job, "eager topk + sort", rivals.gumbel_topk, few)  # other random numbers: nothing to compare
    job = f"gumbel_topk_with_log_prob x{SAMPLES}, {length}"
    to.add(job, "ours", lambda s: draw_with_log_prob(s, cu, keep, SAMPLES, seed, count), few)
    job = f"sample_bernoulli x{SAMPLES}, {length}"
    to.add(job, "ours", lambda s: score_ext.sample_bernoulli(s, cu, SAMPLES, seed), few)
    to.add(job, "eager rand < sigmoid", rivals.sample_bernoulli, few)


def measure_divprune(to: Measurements) -> None:
    """A tenth of one video kept: as long as the kernels' steps take, so inputs need not be larger than the cache."""
    for frames, per_frame, width in ((4, 324, 384), (32, 256, 512)):
        length = frames * per_frame
        count = length // 10
        cu, keep = int32(0, length), int32(count)

        def ours(tokens: Tensor, cu: Tensor = cu, keep: Tensor = keep, count: int = count) -> Tensor:
            return score_ext.divprune(tokens, cu, keep, count)

        videos = [(video(seed, frames, per_frame, width),) for seed in range(2)]
        job = f"divprune, {length} x {width}"
        to.add(job, "ours", ours, videos)
        to.add(job, "eager traversal", rivals.divprune, videos, like=(ours, rivals.nearly_the_same_indices))


def measure_diverse(to: Measurements) -> None:
    """A policy's selection by default, a tenth kept, from given logits; with its launches, as it is called."""
    for frames, per_frame, width in ((32, 256, 512), (FRAMES, 625, WIDTH)):
        length = frames * per_frame
        count = length // 10
        keep = int32(count)
        videos = [
            (PackedVideos.from_grids(video(seed, frames, per_frame, width), [(frames, 1, per_frame)]),)
            for seed in range(2)
        ]
        logits = torch.randn(length, device="cuda")

        def ours(packed: PackedVideos, logits: Tensor = logits, keep: Tensor = keep, count: int = count) -> Tensor:
            fresh = replace(packed)  # without what it keeps of the time before
            return diverse.select(fresh, logits, keep, count, 16.0)

        to.add(f"diverse, {length} x {width}", "ours", ours, videos, graph=False)


def measure_thumbnails(to: Measurements) -> None:
    """Patches as a processor leaves them, 14 x 14 pixels of two frames, of 10,000 tokens."""
    patches = [(torch.rand(40_000, 3, 2, 14, 14, device="cuda"),) for _ in range(4)]

    def ours(pixels: Tensor) -> Tensor:
        return score_ext.thumbnails(pixels, 2, 2)

    moved = sum(4 * pixels.numel() for pixels in (patches[0][0], ours(patches[0][0])))
    job, like = "thumbnails, 40000 patches", (ours, rivals.close)
    to.add(job, "ours", ours, patches, moved)
    to.add(job, "eager adaptive_avg_pool2d", rivals.thumbnails, patches, moved, like=like)
    to.add_compiled(job, "adaptive_avg_pool2d", rivals.thumbnails, patches, moved, like)


def measure_count_sketch(to: Measurements) -> None:
    """Tokens of 3,584 columns in 128."""
    signs = score_ext.count_sketch(torch.eye(WIDTH, device="cuda"), WIDTH).diagonal().contiguous()
    tokens = [(video(seed), signs) for seed in range(TOKEN_INPUTS)]

    def ours(tokens: Tensor, signs: Tensor) -> Tensor:
        return score_ext.count_sketch(tokens, 128)

    moved = LENGTH * (WIDTH * 2 + 128 * 4)
    job, like = f"count_sketch, {LENGTH} x {WIDTH}", (ours, rivals.close)
    to.add(job, "ours", ours, tokens, moved)
    to.add(job, "eager sum of a view", rivals.count_sketch, tokens, moved, like=like)
    to.add_compiled(job, "sum of a view", rivals.count_sketch, tokens, moved, like)


JOBS = (
    measure_copy,
    measure_tokens,
    measure_policies,
    measure_scores,
    measure_divprune,
    measure_diverse,
    measure_thumbnails,
    measure_count_sketch,
)
