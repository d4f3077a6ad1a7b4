"""Training in front of an MLLM's vision tower: a policy sees small pictures, and the tower what the policy chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from score_video.before_tower import Gate, check_pixels, with_halo
from score_video.errors import ScoreError
from score_video.mllm.adapter import find_adapter
from score_video.mllm.conversation import clip_of_frames
from score_video.mllm.environment.encoded_video import ClipInputs, EncodedVideo, clip_inputs
from score_video.mllm.environment.environment import FRAMES_PER_SECOND, MllmEnvironment, Payload, in_order
from score_video.mllm.environment.scoring import Kept, VideoFeatures
from score_video.mllm.gated import FRAMES, TOKENS, check_tower, features_of_kept
from score_video.packed import PackedVideos
from score_video.rl.environment import EncodedBatch, Example


@dataclass
class PixelPayload(Payload):
    """What answering needs besides.

    Attributes:
        thumbnails: of each video, what the policy has seen.
        inputs: what the processor made of each.
    """

    thumbnails: Sequence[PackedVideos] = ()
    inputs: Sequence[Mapping[str, Any]] = ()


class PixelEnvironment(MllmEnvironment):
    """A frozen MLLM whose policies choose before the vision tower (docs/before_the_tower.md).

    A policy sees thumbnails (:mod:`score_video.thumbnails`). Each sample is answered from what the tower makes of the
    tokens in it when it sees these and their halo alone, so that a policy learns what its choice does to the tower. The
    tower runs once for each sample, on that part; and once on the whole video, for where things stand in the prompt and
    for rewards that compare with all tokens, which is what the cache keeps.

    Args:
        model, processor: of a family whose tower can be run on some tokens of a frame.
        halo: how many rings of neighbours in the frame the tower sees besides.
        options: those of :class:`MllmEnvironment`, but ``one_question``: there is nothing to compare a question with.

    Raises:
        ScoreError: the tower cannot be run so; another ``halo`` than an integer from 0; or ``one_question``.
        TypeError, ValueError, OSError: as :class:`MllmEnvironment`.
    """

    def __init__(self, model: Any, processor: Any, *, halo: int = 0, **options: Any) -> None:
        check_pixels(True, halo, one_question=options.get("one_question", False))
        find_adapter(model)  # one that is not supported is said first
        check_tower(model, "pixels must be false")
        kind = model.config.model_type
        if kind in FRAMES:
            raise ScoreError(
                f"pixels must be false for models of type {kind!r}, whose tower sees whole frames or nothing"
            )
        super().__init__(model, processor, **options)
        self.halo = halo
        self._tower = TOKENS[kind]()

    def behind(self, gate: Gate) -> MllmEnvironment:
        """Raises ScoreError: the policy is what chooses there."""
        check_pixels(True, self.halo, gate)
        return super().behind(gate)

    @cached_property
    def token_width(self) -> int:
        """Numbers of a thumbnail, what a policy will see."""
        blank = clip_of_frames(torch.zeros(4, 112, 112, 3, dtype=torch.uint8, device="cpu"), FRAMES_PER_SECOND)
        return int(
            self._tower.thumbnails(self.model, clip_inputs(self.model, self.processor, blank).inputs).tokens.shape[1]
        )

    @torch.no_grad()
    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """As :meth:`MllmEnvironment.encode`, whose features are the whole tower's; the videos are thumbnails.

        What the processor makes is not in the cache, and made each time.
        """

        def both(example: Example) -> tuple[ClipInputs, tuple[EncodedVideo, str | None]]:
            made = self.inputs(example)
            return made, self._encode(example, made)

        every = in_order(examples, both)
        batch = self.batch(examples, [video for _, video in every])
        inputs = [made.inputs for made, _ in every]
        pictures = [self._tower.thumbnails(self.model, one) for one in inputs]
        payload = PixelPayload(**vars(batch.payload), thumbnails=pictures, inputs=inputs)
        return replace(batch, videos=PackedVideos.cat(pictures), payload=payload)

    def encoded(self, payload: Payload, kept: Sequence[Sequence[Tensor]]) -> tuple[VideoFeatures, list[list[Kept]]]:
        """What the tower makes of the tokens of each sample and video when it sees no others."""
        assert isinstance(payload, PixelPayload)
        rows: list[Tensor] = []
        layers: list[list[Tensor]] = [[] for _ in payload.features.deepstack]
        of_samples, first = [], 0
        for sample in kept:
            of_sample = []
            for places, pictures, inputs in zip(sample, payload.thumbnails, payload.inputs, strict=True):
                of_sample.append(Kept(places, torch.arange(first, first + len(places), device="cpu")))
                first += len(places)
                if not len(places):
                    continue
                index = places.to(pictures.tokens.device)
                seen = with_halo(pictures, index, self.halo)
                made, deepstack = features_of_kept(self._tower, self.model, inputs, index, seen)
                rows.append(made)
                for layer, part in zip(layers, deepstack, strict=True):
                    layer.append(part)
            of_samples.append(of_sample)
        whole = payload.features
        features = VideoFeatures(
            torch.cat([whole.rows[:0], *rows]),
            tuple(torch.cat([none[:0], *parts]) for none, parts in zip(whole.deepstack, layers, strict=True)),
            whole.fixed,
        )
        return features, of_samples
