"""Training environment around a frozen video MLLM of transformers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import torch
from torch import Tensor

from score_video.before_tower import Gate, Seen
from score_video.checks import check_integer
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.mllm.adapter import find_adapter
from score_video.mllm.conversation import Clip, chat_ids, chat_text, clip_of_frames, read_clip
from score_video.mllm.environment.answers import AnswerScore, Question, make_question, score_answers
from score_video.mllm.environment.encoded_video import ClipInputs, EncodedVideo, clip_inputs, encode_clip
from score_video.mllm.environment.feature_cache import FeatureCache, model_identity, processor_identity
from score_video.mllm.environment.scoring import Kept, VideoFeatures
from score_video.mllm.gated import check_gate
from score_video.mllm.sharding import Sharding
from score_video.packed import PackedVideos
from score_video.rl.curriculum import as_pseudo_video
from score_video.rl.environment import EncodedBatch, Example, Outcome, Selection, UnreadableError
from score_video.video import VideoError

Made = TypeVar("Made")

FRAMES_PER_SECOND = 2.0
"""At which frames without times are shown: pseudo-videos. What Qwen's processors take videos at."""

MAX_PIXELS = 768 * 28 * 28
"""Of a frame, as Qwen2.5-VL's processor has it."""


@dataclass
class Payload:
    """What answering needs.

    Attributes:
        features: those of the batch's videos, one after the other.
        starts: the row of each video's first token.
        questions: for each video, all that are asked about it.
        keys: what stands for each of these and the content of its video; None for a pseudo-video, which is new each
            time.
        references: what the model makes of these on all tokens, video by video; None until a divergence is asked for.
    """

    features: VideoFeatures
    starts: list[int]
    questions: list[list[Question]]
    keys: list[list[str | None]]
    references: list[AnswerScore] | None = None


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ValueError for a value that :class:`MllmEnvironment` cannot take, before a model is loaded for it."""
    for name in ("num_frames", "max_pixels", "max_tokens_per_forward"):
        check_integer(name, options.get(name, 1), 1)
    if not isinstance(one_question := options.get("one_question", False), bool):
        raise ScoreError(f"one_question must be true or false, got {one_question!r}")
    if not isinstance(cache_dir := options.get("cache_dir"), (str, Path, NoneType)):
        raise ScoreError(f"cache_dir must be a path or None, got {cache_dir!r}")


class MllmEnvironment:
    """A frozen MLLM (:class:`score_video.rl.environment.Environment`), of any family that can be compressed.

    Examples are those of :func:`score_video.rl.data.load_examples`, or of the curriculum's stages: ``video``, a path;
    ``frames``, uint8 or float [T, H, W, 3]; or ``image``, held still for ``num_frames``; and ``questions``. A question
    is put to the model as it is written: who wants its options shown writes them into it.

    The model is put into eval mode, and none of its parameters asks for a gradient any more.

    Args:
        model, processor: as transformers loads them. Tokens are in the model's dtype, outcomes in float32.
        cache_dir: where the vision side's outputs for video files are kept
            (:mod:`score_video.mllm.environment.feature_cache`), of all that was ever encoded; None: nowhere.
            Frames and images are not kept: pseudo-videos are new each time.
        num_frames: how many frames of a video file are shown.
        max_pixels: larger frames are scaled down to at most so many before the processor gets them.
        max_tokens_per_forward: how many all prompts read at once may have, with padding. Memory grows with it.
        one_question: for a policy that sees the question: each example must ask one, whose embedding it gets,
            :meth:`score_video.mllm.compress.EncodedInputs.question`.
        sharding: shares the model out over the processes of a training, :mod:`score_video.mllm.sharding`; None: each
            has the whole model.

    Raises:
        TypeError: a model that is not supported.
        ValueError: a number that is not above 0, or an argument of another kind.
        OSError: the cache's folder cannot be made.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        cache_dir: str | Path | None = None,
        *,
        num_frames: int = 16,
        max_pixels: int = MAX_PIXELS,
        max_tokens_per_forward: int = 16384,
        one_question: bool = False,
        sharding: Sharding | None = None,
    ) -> None:
        numbers = {"num_frames": num_frames, "max_pixels": max_pixels, "max_tokens_per_forward": max_tokens_per_forward}
        check_options({**numbers, "cache_dir": cache_dir, "one_question": one_question})
        self._adapter = find_adapter(model)
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.num_frames = num_frames
        self.max_pixels = max_pixels
        self.max_tokens_per_forward = max_tokens_per_forward
        self.one_question = one_question
        self.gate: Gate | None = None
        self._full: dict[str, Tensor] = {}  # log_prob on all tokens, by Payload.keys
        self._cache: FeatureCache | None = None
        if cache_dir is not None:
            self._cache = FeatureCache(cache_dir, self.identity())
        self._sharding = sharding
        if sharding is not None:  # the weights have been looked at
            sharding.share_out(self.model)

    def identity(self) -> dict[str, Any]:
        """What the vision side's outputs follow from beside the video and the gate, as JSON can hold it."""
        sizes = {"num_frames": self.num_frames, "max_pixels": self.max_pixels}
        return {**sizes, "model": model_identity(self.model), "processor": processor_identity(self.processor)}

    def wait(self) -> None:
        """See :class:`score_video.rl.environment.Environment`."""
        if self._sharding is not None:
            self._sharding.wait()

    def behind(self, gate: Gate) -> MllmEnvironment:
        """The same, but that a gate chooses what of each video the vision tower sees.

        Raises:
            ScoreError: the tower cannot be run in part; or there is a cache, and the gate is a rule of your own.
        """
        check_gate(self.model, gate)
        other = copy.copy(self)
        other.gate, other._full = gate, {}
        if self._cache is not None:
            other._cache = self._cache.with_identity(gate=gate.identity())
        return other

    @property
    def token_width(self) -> int:
        """D of the tokens that a policy will see; and E of the questions' embeddings."""
        width: int = self.model.get_input_embeddings().embedding_dim
        return width

    @torch.no_grad()
    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """Reads the examples' videos, runs the vision side on those that are not in the cache, and puts the questions.

        Raises:
            UnreadableError: a video or image that cannot be read, or that the model cannot take; names the file, or
                else the example.
            ValueError: an example that is not as the class says.
            OSError: an entry of the cache cannot be written.
        """
        return self.batch(examples, in_order(examples, self._encode))

    def batch(self, examples: Sequence[Example], encoded: Sequence[tuple[EncodedVideo, str | None]]) -> EncodedBatch:
        """Puts the questions about videos, each with what stands for its file."""
        videos = [video for video, _ in encoded]
        questions, keys = [], []
        embeddings = []
        for number, (example, (video, name)) in enumerate(zip(examples, encoded, strict=True)):
            asked = _questions(example, self.one_question)
            try:
                questions.append(
                    [make_question(self.model, self.processor, number, video, question) for question in asked]
                )
            except ValueError as error:
                raise ScoreError(f"{_name(example)}: {error}") from error
            keys.append([_key(name, question) for question in asked])
            if self.one_question:
                text_ids = chat_ids(self.processor, chat_text(self.processor, asked[0]["question"]))
                embeddings.append(video.in_prompt(self.model, text_ids).question())
        packed = PackedVideos.cat([video.packed() for video in videos])
        layers = zip(*(video.features.deepstack for video in videos), strict=True)
        deepstack = tuple(torch.cat(list(layer)) for layer in layers)
        features = VideoFeatures(packed.tokens, deepstack, [video.fixed for video in videos])
        payload = Payload(features, packed.cu_seqlens[:-1].tolist(), questions, keys)
        return EncodedBatch(packed, payload, torch.cat(embeddings) if embeddings else None, _seen(videos))

    def select(self, batch: EncodedBatch, compressor: Compressor, keep: Sequence[int]) -> Selection:
        """What a compressor keeps of a batch of this environment, of one choice for each video: keep [1, B].

        Args:
            batch: what :meth:`encode` returned.
            compressor: behind the environment's gate where it has one; it is given the question if it looks at it.
            keep: the counts, to which what the gate kept is the limit.
        """
        question = batch.question if compressor.needs_question else None
        selected = compressor.select_seen(batch.videos, batch.seen, question, keep)
        return Selection(selected.index, selected.keep[None])

    @torch.no_grad()
    def answer(
        self, batch: EncodedBatch, selection: Selection, *, divergence: bool = False, full: bool = False
    ) -> Outcome:
        """See :class:`score_video.rl.environment.Environment`.

        Answers are teacher-forced, and scored by the sum of their tokens' log-probabilities:
        :class:`score_video.mllm.environment.answers.AnswerScore` has what the three are of a question.
        """
        payload: Payload = batch.payload
        references = self._references(batch) if divergence else None
        kept = kept_tokens(selection, batch.videos)
        scores = self._score(payload, *self.encoded(payload, kept), references)
        nothing = torch.zeros((), device=scores[0].log_prob.device)
        of_questions = torch.stack(
            [
                torch.stack([s.log_prob, s.correct.float(), nothing if s.divergence is None else s.divergence])
                for s in scores
            ]
        )  # [samples * questions, 3]
        counts = [len(asked) for asked in payload.questions] * len(kept)
        means = torch.stack([part.mean(0) for part in of_questions.split(counts)])  # type: ignore[no-untyped-call]
        log_prob, correct, kl = means.T.reshape(3, len(kept), -1)  # float32 [samples, videos] each
        return Outcome(log_prob, correct, kl if divergence else None, self._full_log_prob(batch) if full else None)

    def encoded(self, payload: Payload, kept: Sequence[Sequence[Tensor]]) -> tuple[VideoFeatures, list[list[Kept]]]:
        """What the tower has made of the tokens of each sample and video: here, of the whole videos, once for all.

        Args:
            payload: what answering the batch needs.
            kept: int64 [k] each, counted from the video's first.
        """
        of_samples = [zip(sample, payload.starts, strict=True) for sample in kept]
        return payload.features, [[Kept(tokens, tokens + start) for tokens, start in of] for of in of_samples]

    def _full_log_prob(self, batch: EncodedBatch) -> Tensor:
        """float32 [B]: the mean over each video's questions of the log-probability of the right answer on all tokens.

        Each question is read by itself, so that it has the same bits whichever batch it is first asked in, and kept for
        as long as the environment lives.
        """
        payload: Payload = batch.payload
        means = []
        features, (everything,) = MllmEnvironment.encoded(self, payload, kept_tokens(batch.everything, batch.videos))
        for questions, keys, whole in zip(payload.questions, payload.keys, everything, strict=True):
            of_video = []
            for question, key in zip(questions, keys, strict=True):
                found = None if key is None else self._full.get(key)
                if found is None:
                    found = self._score_asked(features, [(question, whole)], None)[0].log_prob
                    if key is not None:
                        self._full[key] = found
                of_video.append(found)
            means.append(torch.stack(of_video).mean())
        return torch.stack(means)

    def _references(self, batch: EncodedBatch) -> list[AnswerScore]:
        """The scores on all tokens, which are made once."""
        payload: Payload = batch.payload
        if payload.references is None:
            everything = MllmEnvironment.encoded(self, payload, kept_tokens(batch.everything, batch.videos))
            payload.references = self._score(payload, *everything, None, keep_distributions=True)
        return payload.references

    def _score(
        self,
        payload: Payload,
        features: VideoFeatures,
        kept: Sequence[Sequence[Kept]],
        references: Sequence[AnswerScore] | None,
        *,
        keep_distributions: bool = False,
    ) -> list[AnswerScore]:
        """What the model makes of all questions, sample by sample, in it video by video.

        Args:
            features: those of the tokens kept.
            kept: these, for each sample and video.
            references: the scores on all tokens, of one sample; None: no divergence.
            keep_distributions: whether these will be references.
        """
        asked = [
            (question, of_video)
            for sample in kept
            for questions, of_video in zip(payload.questions, sample, strict=True)
            for question in questions
        ]
        every = None if references is None else list(references) * len(kept)
        return self._score_asked(features, asked, every, keep_distributions=keep_distributions)

    def _score_asked(
        self,
        features: VideoFeatures,
        asked: Sequence[tuple[Question, Kept]],
        references: Sequence[AnswerScore] | None,
        *,
        keep_distributions: bool = False,
    ) -> list[AnswerScore]:
        return score_answers(
            self.model,
            self._adapter,
            features,
            asked,
            references,
            max_tokens=self.max_tokens_per_forward,
            keep_distributions=keep_distributions,
        )

    def _encode(self, example: Example, inputs: ClipInputs | None = None) -> tuple[EncodedVideo, str | None]:
        """The video, and what stands for its file; None for frames and images.

        Args:
            inputs: what the processor made of the example, where that is there already.
        """

        def make() -> EncodedVideo:
            return self._encode_clip(inputs or self.inputs(example), example)

        path = example.get("video")
        if path is None or example.get("frames") is not None:
            return make(), None
        if self._cache is None:
            video = make()
            state = Path(path).stat()
            return video, f"{path} {state.st_size} {state.st_mtime_ns}"
        try:
            entry = self._cache.path(path)
        except OSError as error:
            raise UnreadableError(f"{path}: {error.strerror}") from error
        tensors = self._cache.get(entry, lambda: make().tensors(), self.model.device)
        return EncodedVideo.from_tensors(tensors), entry.name

    def inputs(self, example: Example) -> ClipInputs:
        """What the processor makes of an example.

        Raises:
            UnreadableError: its video cannot be read, or the processor refuses it: a shape, say, that its model cannot
                take.
        """
        path = example.get("video")
        try:
            if path is None or example.get("frames") is not None:
                clip = _clip_without_file(example, self.num_frames)
            else:
                clip = read_clip(path, self.num_frames, self.max_pixels)
        except VideoError as error:
            raise UnreadableError(str(error)) from error
        return _or_unreadable(lambda: clip_inputs(self.model, self.processor, clip), example)

    def _encode_clip(self, inputs: ClipInputs, example: Example) -> EncodedVideo:
        return _or_unreadable(lambda: encode_clip(self.model, self.processor, inputs, self.gate), example)


def in_order(examples: Sequence[Example], encode: Callable[[Example], Made]) -> list[Made]:
    """What ``encode`` makes of each. Raises UnreadableError with the position of the one that cannot be read."""
    if not examples:
        raise ScoreError("examples must not be empty")
    every = []
    for position, example in enumerate(examples):
        try:
            every.append(encode(example))
        except UnreadableError as error:
            raise UnreadableError(str(error), position) from error
    return every


def _or_unreadable(make: Callable[[], Made], example: Example) -> Made:
    """Raises UnreadableError where it raises ValueError."""
    try:
        return make()
    except ValueError as error:
        raise UnreadableError(f"{_name(example)}: {error}") from error


def _seen(videos: Sequence[EncodedVideo]) -> Seen | None:
    """What the tower has seen of several videos, one after the other."""
    every = [video.seen for video in videos]
    if any(seen is None for seen in every):
        return None
    starts = itertools.accumulate((len(video.features.rows) for video in videos), initial=0)
    parts = [(seen, start) for seen, start in zip(every, starts, strict=False) if seen is not None]
    kept = torch.cat([seen.kept.index + start for seen, start in parts])
    keep = torch.cat([seen.kept.keep for seen, _ in parts])
    return Seen(Selection(kept, keep), torch.cat([seen.encoded + start for seen, start in parts]))


def kept_tokens(selection: Selection, videos: PackedVideos) -> list[list[Tensor]]:
    """For each sample and video of a selection, keep [G, B], the tokens kept: int64 [k] on the CPU, counted from the
    video's first."""
    keep, starts = selection.keep.tolist(), videos.cu_seqlens[:-1].tolist()
    pieces = iter(selection.index.cpu().split([count for sample in keep for count in sample]))  # type: ignore[no-untyped-call]
    return [[next(pieces) - start for start in starts] for _ in keep]


def _clip_without_file(example: Example, num_frames: int) -> Clip:
    """Of the frames of a pseudo-video, or of an image held still."""
    try:
        if example.get("frames") is None:
            if example.get("image") is None:
                raise ScoreError(f"must have a video, frames or an image, got {', '.join(example)}")
            example = as_pseudo_video(example, 0, num_frames, "repeat")
        return clip_of_frames(example["frames"], FRAMES_PER_SECOND)
    except UnreadableError:
        raise
    except (TypeError, ValueError) as error:
        raise ScoreError(f"{_name(example)}: {error}") from error


def _key(video: str | None, asked: Mapping[str, Any]) -> str | None:
    """What stands for a question about a video; None where nothing stands for the video."""
    return None if video is None else repr((video, asked["question"], list(asked["options"]), asked["answer"]))


def _questions(example: Example, one: bool) -> list[Mapping[str, Any]]:
    asked = example.get("questions")
    if not isinstance(asked, Sequence) or not asked:
        raise ScoreError(f"{_name(example)}: must have questions (score_video.rl.data.load_examples), got {asked!r}")
    if one and len(asked) != 1:
        raise ScoreError(f"{_name(example)}: must ask one question for a policy that sees it, got {len(asked)}")
    return list(asked)


def _name(example: Example) -> str:
    media = example.get("video") or example.get("image")
    return str(media) if isinstance(media, (str, Path)) else f"example {example.get('id', '')}".strip()
