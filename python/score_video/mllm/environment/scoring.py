"""How probable a frozen MLLM finds given answers, from given tokens of a video: many prompts in few forward passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import score_ext
from score_video.mllm.adapter import Adapter, Features, Visuals
from score_video.mllm.compress import EncodedInputs
from score_video.mllm.prompt import Prompt
from score_video.packed import PackedVideos, Selection


@dataclass(frozen=True)
class Row:
    """A whole prompt and the beginning of an answer, S tokens in all; on the CPU.

    Attributes:
        video: its number in the batch.
        prompt: [1, S].
        features, fixed: bool [S], the places of the video's tokens, and of what goes in unabridged.
        given: how many tokens of the answer there are.
    """

    video: int
    prompt: Prompt
    features: Tensor
    fixed: Tensor
    given: int


@dataclass(frozen=True)
class Job:
    """A row to be read with some of its video's tokens: ``kept`` int64 [k], ascending, counted from its first."""

    row: Row
    kept: Tensor

    def __len__(self) -> int:
        return len(self.row.features) - int(self.row.features.sum()) + len(self.kept)


@dataclass(frozen=True)
class VideoFeatures:
    """What the jobs' videos are made of, on the model's device.

    Attributes:
        videos: B of them, L tokens.
        deepstack: what goes to later layers, [L, D] each.
        fixed: for each video what goes in unabridged, [F, D] and [F, D] for each later layer; or None.
    """

    videos: PackedVideos
    deepstack: tuple[Tensor, ...]
    fixed: Sequence[Features | None]


def make_row(video: int, encoded: EncodedInputs, given: int) -> Row:
    """From one prompt of one video."""
    prompt, visuals = encoded.prompt, encoded.visuals
    features = visuals.features.placeholders[0].cpu()
    fixed = torch.zeros_like(features) if visuals.fixed is None else visuals.fixed.placeholders[0].cpu()
    ids, mask, positions = prompt.input_ids.cpu(), prompt.attention_mask.cpu(), prompt.position_ids.cpu()
    return Row(video, Prompt(ids, mask, positions, None), features, fixed, given)


def spans(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Which prompts to read together: numbers of them, of similar lengths, that fit when padded to the longest.

    One that is longer than ``max_tokens`` goes by itself. The longest come first.
    """
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if not groups or lengths[groups[-1][0]] * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
        groups[-1].append(number)
    return groups


@torch.no_grad()
def log_probabilities(
    model: Any, adapter: Adapter, features: VideoFeatures, jobs: Sequence[Job], max_tokens: int
) -> Iterator[tuple[int, Tensor]]:
    """What the model expects after each prompt, and after each token of the answer that is given.

    Args:
        max_tokens: of all prompts of a forward pass, with padding.

    Yields:
        (number of the job, float32 [given + 1, vocabulary]), in another order than the jobs'.
    """
    for group in spans([len(job) for job in jobs], max_tokens):
        inputs = _join(model, adapter, features, [jobs[number] for number in group])
        last = 1 + max(jobs[number].row.given for number in group)
        logits = model(**inputs, use_cache=False, logits_to_keep=last).logits  # [prompts, last, vocabulary]
        for number, row in zip(group, logits, strict=True):
            yield number, row[-1 - jobs[number].row.given :].float().log_softmax(1)


def _join(model: Any, adapter: Adapter, features: VideoFeatures, jobs: Sequence[Job]) -> Any:
    """The compressed prompts of several jobs as arguments for the model.

    Prompts are cut to what is kept before they meet, so that no video's tokens are copied for each of its samples.
    """
    device = features.videos.tokens.device
    starts = features.videos.cu_seqlens.tolist()
    kept = [_kept_places(job) for job in jobs]
    width = max(len(places) for places in kept)

    def join(values: Sequence[Tensor], fill: int | bool) -> Tensor:
        """[..., S] of each job -> [..., jobs, width], padded on the left."""
        return torch.stack(
            [
                torch.nn.functional.pad(value[..., places], (width - len(places), 0), value=fill)
                for value, places in zip(values, kept, strict=True)
            ],
            dim=-2,
        ).to(device)

    prompts = [job.row.prompt for job in jobs]
    prompt = Prompt(
        join([prompt.input_ids[0] for prompt in prompts], 0),
        join([prompt.attention_mask[0] for prompt in prompts], 0),
        join([prompt.position_ids[..., 0, :] for prompt in prompts], 0),
        None,
    )
    rows = torch.cat([job.kept + starts[job.row.video] for job in jobs]).to(device)
    lengths = torch.tensor([len(job.kept) for job in jobs], dtype=torch.int32, device="cpu")
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0, dtype=torch.int32)]).to(device)
    videos = PackedVideos(score_ext.gather(features.videos.tokens, rows), ends, lengths.to(device), lengths.to(device))
    deepstack = tuple(score_ext.gather(layer, rows) for layer in features.deepstack)
    visuals = Visuals(
        videos,
        Features(videos.tokens, join([job.row.features for job in jobs], False), deepstack),
        _join_fixed([features.fixed[job.row.video] for job in jobs], join([job.row.fixed for job in jobs], False)),
        torch.arange(len(jobs), device=device),
    )
    everything = Selection(torch.arange(len(rows), device=device), lengths.to(device))
    return EncodedInputs(model, adapter, prompt, visuals, {}).compress(everything)


def _kept_places(job: Job) -> Tensor:
    """int64, ascending: the places of a prompt that stay."""
    stays = ~job.row.features
    stays[job.row.features.nonzero()[job.kept, 0]] = True
    return stays.nonzero()[:, 0]


def _join_fixed(parts: Sequence[Features | None], placeholders: Tensor) -> Features | None:
    there = [part for part in parts if part is not None]
    if not there:
        return None
    layers = zip(*(part.deepstack for part in there), strict=True)
    return Features(
        torch.cat([part.rows for part in there]), placeholders, tuple(torch.cat(list(layer)) for layer in layers)
    )
