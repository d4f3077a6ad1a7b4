"""Every op in plain torch: what the native kernels are tested against, and readable definitions of what they compute.

Same names and arguments as :mod:`score_ext`. These are slow (loops over videos, the whole state in memory, float64
where the ops have float32) and differentiable by torch's own autograd. What must agree between devices to the bit
(:func:`select`, :func:`divprune`, :func:`gumbel_topk`, :func:`sample_bernoulli`) is computed here in the same single
operations in the same order, so it agrees to the bit too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from score_ext._relative_reference import relative_logits as relative_logits
from score_ext._relative_reference import relative_state as relative_state
from score_ext.results import BernoulliSample, Compressed, GumbelTopk, GumbelTopkWithLogProb

# ---- the packed batch -----------------------------------------------------------------------------------------------


def _videos(cu_seqlens: Tensor) -> Iterator[tuple[int, slice]]:
    offsets = cu_seqlens.tolist()
    for video, (begin, end) in enumerate(itertools.pairwise(offsets)):
        yield video, slice(begin, end)


def _previous(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor) -> tuple[Tensor, Tensor]:
    """The token before each one, [L, D] (itself in a first frame), and whether there is one, [L]."""
    row = torch.arange(tokens.shape[0], device=tokens.device)
    previous, has_previous = row.clone(), torch.zeros(tokens.shape[0], dtype=torch.bool, device=tokens.device)
    for video, span in _videos(cu_seqlens):
        step = int(tokens_per_frame[video])
        later = slice(span.start + step, span.stop)
        if later.start < later.stop:
            previous[later] = row[later] - step
            has_previous[later] = True
    return tokens[previous], has_previous


# ---- scores ---------------------------------------------------------------------------------------------------------


def surprise(
    tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, metric: str = "cosine", first: float = math.inf
) -> Tensor:
    """See :func:`score_ext.surprise`."""
    x = tokens.double()  # the square of no float overflows or underflows
    previous, has_previous = _previous(x, cu_seqlens, tokens_per_frame)
    if metric == "cosine":
        squares = x.square().sum(1) * previous.square().sum(1)
        zero = squares == 0
        cosine = (x * previous).sum(1) / torch.where(zero, 1.0, squares).sqrt()
        value = 1 - torch.where(zero, 0.0, cosine)
        value = torch.where(value < 0, 0.0, value)
    else:
        value = torch.linalg.vector_norm(x - previous, dim=1)
    return torch.where(has_previous, value, first).float()


def policy_state(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    features: Tensor | None,
    begin: int,
    end: int,
    dtype: torch.dtype,
    use_token: bool = True,
    use_residual: bool = True,
    epsilon: float = 1e-5,
) -> Tensor:
    """See :func:`score_ext.policy_state`."""
    width = (tokens.shape[1],)
    x = tokens.double()
    previous, has_previous = _previous(x, cu_seqlens, tokens_per_frame)
    parts = []
    if use_token:
        parts.append(torch.nn.functional.layer_norm(x, width, eps=epsilon))
    if use_residual:
        residual = torch.nn.functional.layer_norm(x - previous, width, eps=epsilon)
        parts.append(torch.where(has_previous[:, None], residual, 0.0))
    if features is not None:
        parts.append(features)
    return torch.cat(parts, dim=1)[begin:end].float().to(dtype)


def policy_logits(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
    features: Tensor | None = None,
    use_token: bool = True,
    use_residual: bool = True,
    epsilon: float = 1e-5,
) -> Tensor:
    """See :func:`score_ext.policy_logits`."""
    dtype = layers[0][0].dtype
    length = tokens.shape[0]
    x = policy_state(tokens, cu_seqlens, tokens_per_frame, features, 0, length, dtype, use_token, use_residual, epsilon)
    for weight, bias in layers[:-1]:
        x = torch.nn.functional.gelu(torch.nn.functional.linear(x, weight, bias))
    return torch.nn.functional.linear(x, *layers[-1]).flatten().float()


# ---- arithmetic that rounds the same everywhere: csrc/include/score/transcendental.h --------------------------------

_ONE = 1 << 30  # 1.0 in fixed point


def _float_bits(value: Tensor) -> Tensor:
    return value.view(torch.int32)


def _power_of_two(exponent: Tensor) -> Tensor:
    return (exponent << 23).view(torch.float32)


def _exp_negative(a: Tensor) -> Tensor:
    a = torch.where(a < 88.0, a, 88.0)
    n = (a * 1.44269504 + 0.5).to(torch.int32)
    whole = n.float()  # an integer times a number would have torch's default dtype
    r = (a - whole * 0.693359375) - whole * -2.12194440e-4
    p = torch.full_like(a, -1.98412698e-4)
    for coefficient in (1.38888889e-3, -8.33333333e-3, 4.16666667e-2, -1.66666667e-1, 0.5, -1.0, 1.0):
        p = p * r + coefficient
    return p * _power_of_two(127 - n)


def _sigmoid_fixed(x: Tensor) -> Tensor:
    e = _exp_negative(x.abs())
    p = torch.where(x < 0, e, 1.0) / (1.0 + e)
    return torch.where(x == x, (p * float(_ONE) + 0.5).to(torch.int32), 0)


def _log1p_small(f: Tensor) -> Tensor:
    s = f / (2.0 + f)
    s2 = s * s
    p = torch.full_like(f, 2 / 9)
    for coefficient in (2 / 7, 2 / 5, 2 / 3, 2.0):
        p = p * s2 + coefficient
    return p * s


def _log_positive(x: Tensor) -> Tensor:
    bits = _float_bits(x)
    n = (bits - 0x3F3504F3) >> 23
    m = (bits - (n << 23)).view(torch.float32)
    whole = n.float()
    return whole * 0.693359375 + (whole * -2.12194440e-4 + _log1p_small(m - 1.0))


def _gumbel(word: Tensor) -> Tensor:
    unit = 2.0**-32
    below = (word.float() + 0.5) * unit
    above = ((0xFFFFFFFF - word).float() + 0.5) * unit
    return -_log_positive(-torch.where(word < 0x40000000, _log1p_small(-below), _log_positive(above)))


_STREAMS = {"gumbel_topk": 0, "bernoulli": 1}


def _philox(counter: list[Tensor], seed: int) -> list[Tensor]:
    """Philox 4x32-10: four words of 32 bits, as int64 tensors of one shape, into four random ones."""
    mask = 0xFFFFFFFF
    key0, key1 = seed & mask, (seed >> 32) & mask
    for _ in range(10):
        product0, product1 = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57  # wrap around; their bits are right
        counter = [
            ((product1 >> 32) & mask) ^ counter[1] ^ key0,
            product1 & mask,
            ((product0 >> 32) & mask) ^ counter[3] ^ key1,
            product0 & mask,
        ]
        key0, key1 = (key0 + 0x9E3779B9) & mask, (key1 + 0xBB67AE85) & mask
    return counter


def _random_words(length: int, seed: int, stream: str, sample: int, video: int) -> Tensor:
    """The random words of one video's tokens: int64 [length], 32 bits each."""
    quads = torch.arange((length + 3) // 4, device="cpu")
    counter = [quads, *(torch.full_like(quads, value) for value in (sample, video, _STREAMS[stream]))]
    return torch.stack(_philox(counter, seed), dim=1).flatten()[:length]


# ---- selecting ------------------------------------------------------------------------------------------------------


def _by_rank(scores: Tensor) -> Tensor:
    """Positions by falling score; ties to the lower position, NaN last."""
    missing = torch.isnan(scores)
    falling = torch.argsort(torch.where(missing, -math.inf, scores), descending=True, stable=True)
    return torch.cat([falling[~missing[falling]], falling[missing[falling]]])


class _ShiftSolver:
    """Newton's method in a bracket for the shift under which probabilities sum to the target."""

    newton_steps = 24

    def __init__(self, logits: Tensor, target: int, precision: int, start: float) -> None:
        low, high = float(logits.min()), float(logits.max())
        self.low = self._round(-high - max(32.0, self._round(abs(high) * 2.0**-20)))
        self.high = self._round(-low + max(32.0, self._round(abs(low) * 2.0**-20)))
        self.target, self.tolerance, self.evaluations = target, target >> precision, 0
        self.shift = start if self.low < start < self.high else self._middle()

    @staticmethod
    def _round(value: float) -> float:
        return float(torch.tensor(value, dtype=torch.float32, device="cpu"))

    @staticmethod
    def _order(value: float) -> int:
        bits = int(torch.tensor(value, dtype=torch.float32, device="cpu").view(torch.int32))
        return -(bits & 0x7FFFFFFF) if bits < 0 else bits

    def _middle(self) -> float:
        width = self._round(self.high - self.low)
        if width < 256 and self.evaluations < self.newton_steps:
            return self._round(self.low + self._round(width * 0.5))
        low, high = self._order(self.low), self._order(self.high)
        order = low + int((high - low) / 2)
        value = torch.tensor(abs(order), dtype=torch.int32, device="cpu").view(torch.float32)
        return -float(value) if order < 0 else float(value)

    def update(self, total: int, slope: int) -> bool:
        if total >= self.target:
            self.high = self.shift
            if total - self.target <= self.tolerance:
                return True
        else:
            self.low = self.shift
        self.evaluations += 1
        following = math.nan
        if slope > 0 and self.evaluations < self.newton_steps:
            following = self._round(self.shift - (total - self.target - self.tolerance // 2) / slope)
        self.shift = following if self.low < following < self.high else self._middle()
        if self.low < self.shift < self.high:
            return False
        self.shift = self.high
        return True


def _sums(logits: Tensor, shift: float) -> tuple[Tensor, int, int]:
    p = _sigmoid_fixed(logits + shift)
    slope = (p.float() * ((_ONE - p).float() * (1.0 / _ONE))).to(torch.int32)
    return p, int(p.sum(dtype=torch.int64)), int(slope.sum(dtype=torch.int64))


def _inclusion_probabilities(logits: Tensor, keep: int) -> Tensor:
    """Fixed-point inclusion probabilities of one video's finite logits [length], 0 for the others."""
    finite = logits.abs() <= 1e30
    target = keep * _ONE
    start = math.nan
    stride = max(1, len(logits) // 4096)
    if stride > 1:
        part = logits[::stride][finite[::stride]]
        part_target = int(target / int(finite.sum()) * len(part))
        if part_target > 0:
            solver = _ShiftSolver(logits[finite], part_target, 8, math.nan)
            while not solver.update(*_sums(part, solver.shift)[1:]):
                pass
            start = solver.shift
    solver = _ShiftSolver(logits[finite], target, 17, start)
    while not solver.update(*_sums(logits[finite], solver.shift)[1:]):
        pass
    probability = torch.zeros(len(logits), dtype=torch.int32, device=logits.device)
    probability[finite] = _sums(logits[finite], solver.shift)[0]
    return probability


def _systematic(logits: Tensor, keep: int, offset: float) -> Tensor:
    """Positions of one video's tokens that systematic sampling keeps, ascending."""
    if keep == 0:
        return torch.empty(0, dtype=torch.int64, device=logits.device)
    certain = logits > 1e30
    finite = logits.abs() <= 1e30
    kept = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    for members in (certain, finite, ~(certain | finite)):  # filled in this order
        size = int(members.sum())
        if keep > size:
            kept |= members
            keep -= size
            continue
        if members is finite and 0 < keep < size:
            probability = _inclusion_probabilities(logits, keep)
        else:
            probability = members.to(torch.int32) * _ONE
        running = probability.cumsum(0, dtype=torch.int64)
        spacing = int(running[-1]) // keep
        first = min(int(offset * spacing), spacing - 1)
        passed = torch.where(running > first, (running - first - 1) // spacing + 1, 0).clamp(max=keep)
        kept |= passed.diff(prepend=running.new_zeros(1)) > 0
        break
    return kept.nonzero().flatten()


def select(
    scores: Tensor,
    cu_seqlens: Tensor,
    keep: Tensor,
    total_keep: int | None = None,
    selection: str = "topk",
    offset: float = 0.5,
) -> Tensor:
    """See :func:`score_ext.select`."""
    rows = []
    for video, span in _videos(cu_seqlens):
        count = int(keep[video])
        if selection == "topk":
            kept = _by_rank(scores[span])[:count].sort().values
        else:
            kept = _systematic(scores[span], count, offset)
        rows.append(span.start + kept)
    return torch.cat(rows)


# ---- cosines that round the same everywhere: csrc/include/score/cosines.h --------------------------------------------

_SUM_LANES, _MEAN_ROWS = 16, 64


def _row_products(rows: Tensor, row: Tensor) -> Tensor:
    """rows [L, D] times row [D] or rows [L, D], both float32: [L], summed in the ops' order."""
    products = torch.nn.functional.pad(rows * row, (0, -rows.shape[1] % _SUM_LANES))
    sums = products.new_zeros(len(rows), _SUM_LANES)
    for columns in products.split(_SUM_LANES, dim=1):
        sums = sums + columns
    while sums.shape[1] > 1:
        low, high = sums.chunk(2, dim=1)
        sums = low + high
    return sums[:, 0]


def _exact_rows(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [L, D] as float32, and their sums of squares [L]: those that have none times a power of two, and 0 where
    they are not finite."""
    rows = tokens.float()
    squares = _row_products(rows, rows)
    exact = (squares >= 2.0**-100) & (squares <= 2.0**126)
    finite = rows.isfinite().all(1, keepdim=True)
    largest = rows.abs().amax(1, keepdim=True)
    _, exponent = torch.frexp(torch.where(finite & (largest > 0), largest, 1.0))
    scaled = torch.where(finite, (rows.double() * torch.pow(2.0, (1 - exponent).double())).float(), 0.0)
    rows = torch.where(exact[:, None], rows, scaled)
    return rows, _row_products(rows, rows)


def _roots(squares: Tensor, others: Tensor | float = 1.0) -> Tensor:
    """The root of the product, float64; infinity for 0."""
    products = squares.double() * others
    return torch.where(products == 0, math.inf, products).sqrt()


def _farthest_first(tokens: Tensor, keep: int, weights: Tensor | None) -> Tensor:
    """int64 [keep], rows of one video's tokens as they are taken; keep is at least 1."""
    rows, squares = _exact_rows(tokens)
    directions = rows * _roots(squares).reciprocal().float()[:, None]
    blocks = torch.nn.functional.pad(directions, (0, 0, 0, -len(rows) % _MEAN_ROWS)).view(-1, _MEAN_ROWS, rows.shape[1])
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    sums = blocks.new_zeros(len(blocks), rows.shape[1])
    for row in blocks.unbind(1):
        sums = sums + row
    for block in sums:
        total = total + block.double()
    mean = total.float()

    def distances(other: Tensor, square: Tensor) -> Tensor:
        cosine = _row_products(rows, other) / _roots(squares, square.double())
        return torch.where(cosine < 1, 1 - cosine, 0.0).float()

    def worth_of(distance: Tensor) -> Tensor:
        if weights is None:
            return distance
        worth = distance * torch.where(weights > 0, weights, 0.0).clamp(max=1e30)
        return torch.where(worth < torch.finfo(torch.float32).tiny, 0.0, worth)

    if weights is None:
        from_mean = -(_row_products(rows, mean) / _roots(squares)).float()
    else:
        from_mean = worth_of(distances(mean, _row_products(mean[None], mean)[0]))
    chosen = [int((from_mean == from_mean.max()).nonzero()[0, 0])]
    nearest = torch.full_like(squares, math.inf)
    while len(chosen) < keep:
        last = chosen[-1]
        nearest = torch.minimum(nearest, distances(rows[last], squares[last]))
        worth = worth_of(nearest).clone()
        worth[chosen] = -math.inf
        chosen.append(int((worth == worth.max()).nonzero()[0, 0]))
    return torch.tensor(chosen, dtype=torch.int64, device=tokens.device)


def divprune(
    tokens: Tensor,
    cu_seqlens: Tensor,
    keep: Tensor,
    total_keep: int | None = None,
    ordered: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """See :func:`score_ext.divprune`."""
    rows = [torch.empty(0, dtype=torch.int64, device=tokens.device)]
    for video, span in _videos(cu_seqlens):
        count = int(keep[video])
        if count > 0:
            taken = span.start + _farthest_first(tokens[span], count, None if weights is None else weights[span])
            rows.append(taken if ordered else taken.sort().values)
    return torch.cat(rows)


# ---- sampling -------------------------------------------------------------------------------------------------------


def _seed_and_number(seed: Tensor, video: int) -> tuple[int, int]:
    return (int(seed[video]), 0) if len(seed) > 1 else (int(seed[0]), video)


def gumbel_topk(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, num_samples: int, seed: Tensor, total_keep: int | None = None
) -> GumbelTopk:
    """See :func:`score_ext.gumbel_topk`."""
    order = []
    for sample_number in range(num_samples):
        rows = []
        for video, span in _videos(cu_seqlens):
            length = span.stop - span.start
            video_seed, number = _seed_and_number(seed, video)
            words = _random_words(length, video_seed, "gumbel_topk", sample_number, number)
            keys = logits[span].detach() + _gumbel(words)
            rows.append(span.start + _by_rank(keys)[: int(keep[video])])
        order.append(torch.cat(rows))
    drawn = torch.stack(order)
    return GumbelTopk(drawn.sort(dim=1).values, drawn)


def plackett_luce_log_prob(logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor) -> Tensor:
    """See :func:`score_ext.plackett_luce_log_prob`; in float64."""
    log_probs = []
    for rows in order:
        at = 0
        for video, span in _videos(cu_seqlens):
            count = int(keep[video])
            drawn = rows[at : at + count]
            at += count
            if count == 0:
                log_probs.append(logits.new_zeros(()))
                continue
            rest = torch.ones(span.stop - span.start, dtype=torch.bool, device=logits.device)
            rest[drawn - span.start] = False
            if not bool((logits[span] < math.inf).all()):  # NaN or +inf
                log_probs.append(logits[span].sum() * math.nan)
                continue
            wide = logits[span].double()
            backwards = torch.cat([wide[rest].logsumexp(0, keepdim=True), logits[drawn].double().flip(0)])
            remaining = backwards.logcumsumexp(0)[1:].flip(0)  # log of the sum over what could be drawn, step by step
            steps = torch.where(logits[drawn] == -math.inf, -math.inf, logits[drawn].double() - remaining)
            log_probs.append(steps.sum().to(logits.dtype))
    return torch.stack(log_probs).view(order.shape[0], len(keep))


def gumbel_topk_with_log_prob(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, num_samples: int, seed: Tensor, total_keep: int | None = None
) -> GumbelTopkWithLogProb:
    """See :func:`score_ext.gumbel_topk_with_log_prob`."""
    index, order = gumbel_topk(logits, cu_seqlens, keep, num_samples, seed, total_keep)
    return GumbelTopkWithLogProb(index, plackett_luce_log_prob(logits, cu_seqlens, keep, order))


def sample_bernoulli(logits: Tensor, cu_seqlens: Tensor, num_samples: int, seed: Tensor) -> BernoulliSample:
    """See :func:`score_ext.sample_bernoulli`."""
    masks, log_probs, counts = [], [], []
    for sample_number in range(num_samples):
        for video, span in _videos(cu_seqlens):
            part = logits[span]
            video_seed, number = _seed_and_number(seed, video)
            words = _random_words(len(part), video_seed, "bernoulli", sample_number, number)
            mask = (words >> 2) < _sigmoid_fixed(part.detach())
            masks.append(mask)
            log_probs.append(torch.nn.functional.logsigmoid(torch.where(mask, part, -part)).sum())
            counts.append(mask.sum(dtype=torch.int32))
    shape = (num_samples, len(cu_seqlens) - 1)
    return BernoulliSample(
        torch.cat(masks).view(num_samples, len(logits)),
        torch.stack(log_probs).view(shape),
        torch.stack(counts).view(shape),
    )


# ---- gathering ------------------------------------------------------------------------------------------------------


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """See :func:`score_ext.gather`."""
    return tokens[index]


# ---- pixels ---------------------------------------------------------------------------------------------------------


def thumbnails(pixels: Tensor, rows: int, columns: int) -> Tensor:
    """See :func:`score_ext.thumbnails`."""
    return torch.nn.functional.adaptive_avg_pool2d(pixels.float().mean(2), (rows, columns))


# ---- fewer columns --------------------------------------------------------------------------------------------------


def count_sketch(tokens: Tensor, width: int) -> Tensor:
    """See :func:`score_ext.count_sketch`."""
    # splitmix64, in integers that wrap around
    bits = torch.arange(tokens.shape[1], device=tokens.device) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        bits = (bits ^ ((bits >> shift) & ((1 << (64 - shift)) - 1))) * factor
    signs = (1 - 2 * ((bits >> 40) & 1)).float()
    sums = tokens.new_zeros(len(tokens), width, dtype=torch.float32)
    for columns in (tokens.float() * signs).split(width, 1):
        sums[:, : columns.shape[1]] += columns
    return sums


# ---- the whole path -------------------------------------------------------------------------------------------------


def compress(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    keep: Tensor,
    total_keep: int | None = None,
    scores: Tensor | None = None,
    selection: str = "topk",
    offset: float = 0.5,
) -> Compressed:
    """See :func:`score_ext.compress`."""
    if scores is None:
        scores = surprise(tokens, cu_seqlens, tokens_per_frame)
    index = select(scores, cu_seqlens, keep, total_keep, selection, offset)
    cu_kept = torch.cat([keep.new_zeros(1), keep.cumsum(0, dtype=torch.int32)])
    return Compressed(tokens[index], index, cu_kept)
