"""A compressor: what decides, how many tokens stay and how they are picked, as one object that is saved and loaded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import save_file
from torch import Tensor
from transformers import PretrainedConfig

import score_ext
from score_ext.budget import keep_count
from score_ext.ops import Law
from score_video.files import output_folder
from score_video.methods import IndexMethod, find_method
from score_video.packed import PackedVideos, Selection, check_sizes
from score_video.policy import SurprisePolicy, SurprisePolicyConfig, expected_count
from score_video.policy.weights import load_policy_weights, new_policy, pretrained_policy

if TYPE_CHECKING:
    from score_video.mllm.adapter import Pictures
    from score_video.mllm.compress import CompressedInputs

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_MODEL_TYPE = "score_compressor"


@dataclass(frozen=True)
class AdaptiveRetention:
    """Each video keeps as many tokens as its policy expects to, within bounds, so that quiet videos keep fewer.

    k is :func:`score_video.policy.expected_count`, rounded to the nearest integer (halves to even), raised to
    ``keep_count(T, N, floor)`` where it is below and lowered to ``keep_count(T, N, cap)`` where it is above.

    Attributes:
        floor, cap: fractions, 0 < floor <= cap <= 1.

    Raises:
        TypeError, ValueError: they are not.
    """

    floor: float
    cap: float

    def __post_init__(self) -> None:
        _check_fraction("floor", self.floor)
        _check_fraction("cap", self.cap)
        if self.floor > self.cap:
            raise ValueError(f"floor must be at most cap, {self.cap}, got {self.floor}")


@dataclass(frozen=True, eq=False)
class Compressor:
    """Decides which visual tokens of a video a language model gets to see.

    Attributes:
        method: a policy, or the name of a training-free method (:data:`score_video.methods.METHODS`). Given nothing it
            is :func:`score_video.policy.weights.pretrained_policy`, for tokens of any vision tower.
        retention: the fraction of tokens kept, in (0, 1], exactly ``keep_count`` of each video; or
            :class:`AdaptiveRetention`, which needs a policy.
        law: how :func:`score_ext.select` picks by logits or scores. None: "systematic" for a policy, "topk" for a
            score (what did better for each, docs/results.md), nothing for a method that selects by a rule of its own.
        seed: what a random method draws from, 64 bits.

    Raises:
        TypeError, ValueError: a value of the wrong type, out of range or that does not go with the others.
    """

    method: SurprisePolicy | str = field(default_factory=pretrained_policy)
    retention: float | AdaptiveRetention = 0.1
    law: Law | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.method, (SurprisePolicy, str)):
            raise TypeError(f"method must be a SurprisePolicy or a name, got {type(self.method).__name__}")
        ruled = isinstance(self.method, str) and isinstance(find_method(self.method), IndexMethod)
        if not isinstance(self.retention, AdaptiveRetention):
            _check_fraction("retention", self.retention)
        elif isinstance(self.method, str):
            raise ValueError(f"retention must be a fraction for {self.method!r}: only a policy expects a count")
        if self.law not in (None, "systematic", "topk"):
            raise ValueError(f"law must be 'systematic', 'topk' or None, got {self.law!r}")
        if ruled and self.law is not None:
            raise ValueError(f"law must be None for {self.method!r}, which selects by a rule of its own: {self.law!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed must be an integer, got {self.seed!r}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must fit in 64 bits, got {self.seed}")

    @property
    def plain_retention(self) -> float | dict[str, float]:
        """``retention`` as JSON has it: the fraction, or floor and cap by name."""
        return asdict(self.retention) if isinstance(self.retention, AdaptiveRetention) else self.retention

    @property
    def law_used(self) -> Law | None:
        """``law``, or what it stands for where that is None; None for a method that selects by a rule of its own."""
        if isinstance(self.method, SurprisePolicy):
            return self.law or "systematic"
        return None if isinstance(find_method(self.method), IndexMethod) else self.law or "topk"

    def __call__(self, model: Any, *, pictures: Pictures | None = None, **inputs: Any) -> CompressedInputs:
        """:func:`score_video.mllm.compress_inputs` of what a processor returned: ``compressor(model, **inputs)``."""
        from score_video.mllm.compress import compress_inputs  # it builds on this module

        return compress_inputs(model, inputs, self, pictures=pictures)

    @torch.no_grad()
    def select(
        self, videos: PackedVideos, question: Tensor | None = None, keep: Sequence[int] | None = None
    ) -> Selection:
        """Which tokens to keep. Without ``keep`` it waits for the device, because how many there are has to be known.

        Args:
            videos: B videos of L tokens. A policy that is on another device is moved to theirs.
            question: [B, E] for a policy that sees the question, else None.
            keep: B counts, 0 to each video's length, to be kept instead of what the retention says: for engines that
                fix them before there are tokens. A policy with state "residual" and the methods "surprise",
                "surprise-l2" and "norm" then do not wait for the device.

        Raises:
            TypeError, ValueError: the videos, the question or ``keep`` do not fit each other or what decides, or
                (adaptive) a video's logits hold NaN.
        """
        method, rule, logits = self.method, None, None
        if isinstance(method, SurprisePolicy):
            method.to(device=videos.tokens.device)  # type: ignore[call-arg]
            logits = method(videos, question)
        elif question is not None:
            raise ValueError(f"question must be None: {method!r} does not see it")
        else:
            rule = find_method(method)
        counts = self._counts(videos, logits) if keep is None else _given_counts(videos, keep)
        kept = torch.tensor(counts, dtype=torch.int32, device="cpu").to(videos.tokens.device, non_blocking=True)
        packed = videos.tokens, videos.cu_seqlens, videos.tokens_per_frame, kept
        if isinstance(rule, IndexMethod):
            return Selection(rule.index(*packed, seed=self.seed), kept)
        law = self.law_used
        assert law is not None
        scores = logits if rule is None else rule.select_by(*packed, law)
        assert scores is not None
        return Selection(score_ext.select(scores, videos.cu_seqlens, kept, sum(counts), law), kept)

    def _counts(self, videos: PackedVideos, logits: Tensor | None) -> list[int]:
        """What each video keeps; logits are needed where the count is adaptive."""
        check_sizes(videos)
        sizes = torch.stack([videos.lengths, videos.tokens_per_frame], dim=1).tolist()
        frames = [(length // n if length else 0, n) for length, n in sizes]
        if not isinstance(self.retention, AdaptiveRetention):
            return [keep_count(t, n, self.retention) for t, n in frames]
        assert logits is not None
        counts = []
        for video, ((t, n), expected) in enumerate(zip(frames, expected_count(logits, videos).tolist(), strict=True)):
            if math.isnan(expected):
                raise ValueError(f"tokens of video {video} give logits with NaN: it has no count")
            floor, cap = keep_count(t, n, self.retention.floor), keep_count(t, n, self.retention.cap)
            counts.append(min(max(round(expected), floor), cap))
        return counts

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json, and model.safetensors where there is a policy: all of it or nothing.

        Args:
            folder: made if it is not there, in a folder that is. A former compressor (or policy) in it is replaced.

        Raises:
            FileExistsError, NotADirectoryError, FileNotFoundError: ``folder`` holds anything else, is no folder, or has
                no parent.
            OSError: it could not be written.
        """
        config = {"model_type": _MODEL_TYPE, "retention": self.plain_retention, "law": self.law, "seed": self.seed}
        with output_folder(Path(folder), (_CONFIG, _WEIGHTS), overwrite=True) as temporary:
            if isinstance(self.method, SurprisePolicy):
                config["policy"] = {name: getattr(self.method.config, name) for name in _POLICY_KEYS}
                weights = {name: weight.contiguous() for name, weight in self.method.state_dict().items()}
                save_file(weights, temporary / _WEIGHTS, metadata={"format": "pt"})
            else:
                config["method"] = self.method
            (temporary / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @staticmethod
    def from_pretrained(source: str | Path, *, revision: str | None = None) -> Compressor:
        """Loads what :meth:`save_pretrained` wrote; a policy comes on the CPU, in the dtype it was saved in.

        Args:
            source: a folder, or the id of a repository on the Hugging Face hub, "owner/name".
            revision: the hub's branch, tag or commit.

        Raises:
            FileNotFoundError: there is no such folder, and it cannot be an id; or it has no config or weights.
            TypeError, ValueError: the config has a key that is not known, lacks one or has a bad value, or the weights
                are damaged or of another policy; names the file.
            huggingface_hub.errors.HfHubHTTPError: as the hub answered.
        """
        path = _file(source, _CONFIG, revision)
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # not JSON, not UTF-8
            raise ValueError(f"{path} is not JSON: {error}") from None
        _check_keys(path, config)
        try:
            if isinstance(retention := config["retention"], dict):
                retention = AdaptiveRetention(**retention)
            method = config["method"] if "method" in config else new_policy(SurprisePolicyConfig(**config["policy"]))
            compressor = Compressor(method, retention, config["law"], config["seed"])
        except TypeError as error:
            raise TypeError(f"{path}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if isinstance(method, SurprisePolicy):
            load_policy_weights(method, _file(source, _WEIGHTS, revision))
        return compressor


_POLICY_KEYS = sorted(
    {field.name for field in fields(SurprisePolicyConfig)} - {f.name for f in fields(PretrainedConfig)}
)


def _given_counts(videos: PackedVideos, keep: Sequence[int]) -> list[int]:
    """The counts, checked as far as the host can see; the ops check them against lengths that lie on the CPU."""
    check_sizes(videos)
    counts = list(keep)
    if len(counts) != videos.num_videos:
        raise ValueError(f"keep must be {videos.num_videos} counts, one for each video, got {len(counts)}")
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"keep must hold integers, got {count!r}")
        if count < 0:
            raise ValueError(f"keep must not be negative, got {count}")
    return counts


def _check_fraction(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {value}")


def _check_keys(path: Path, config: object) -> None:
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold an object, got {type(config).__name__}")
    if (kind := config.get("model_type")) != _MODEL_TYPE:
        raise ValueError(f"{path}: model_type must be {_MODEL_TYPE!r}, got {kind!r}")
    wanted = {"model_type", "retention", "law", "seed", "policy" if "policy" in config else "method"}
    if odd := sorted(wanted ^ set(config)):
        raise ValueError(f"{path} {'lacks' if odd[0] in wanted else 'has an unknown key'} {odd[0]!r}")
    if "policy" in config and not isinstance(config["policy"], dict):
        raise TypeError(f"{path}: policy must be an object, got {type(config['policy']).__name__}")
    if "policy" in config and (missing := sorted(set(_POLICY_KEYS) - set(config["policy"]))):
        raise ValueError(f"{path}: policy lacks {missing[0]!r}")


def _file(source: str | Path, name: str, revision: str | None) -> Path:
    """The file of that name in a folder, or in a repository of the hub (downloaded unless it is in the cache)."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise FileNotFoundError(2, f"holds no {name}", str(source))
        return folder / name
    if isinstance(source, Path) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        raise FileNotFoundError(2, "is neither a folder nor the id of a repository on the hub", str(source))
    return Path(hf_hub_download(source, name, revision=revision))
