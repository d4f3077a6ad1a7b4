"""A compressor: what decides, how many tokens stay and how they are picked, as one object that is saved and loaded."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor

import score_ext
from score_ext.ops import SelectionRule
from score_video import diverse
from score_video.before_tower import Gate, Seen, only
from score_video.checks import check_fraction, is_integer
from score_video.errors import ScoreError, ScoreWarning
from score_video.files import output_folder
from score_video.methods import (
    METHODS,
    RANDOM,
    IndexMethod,
    Method,
    RandomMethod,
    ScoreMethod,
    ScoringRule,
    find_method,
    former_seed,
    with_seed,
)
from score_video.packed import PackedVideos, Selection, Selector, check_selection, described, needs_question
from score_video.policy import SurprisePolicy, pretrained_policy, storage
from score_video.policy.config import MODEL_TYPE as POLICY_TYPE
from score_video.renamed import renamed_arguments, renamed_fields, with_new_names
from score_video.retention import AdaptiveRetention as AdaptiveRetention
from score_video.retention import counts_of, given_counts
from score_video.saved_compressor import FILES, GATE_WEIGHTS, MODEL_TYPE, read_saved

if TYPE_CHECKING:
    from score_video.mllm.adapter import VisualLayout
    from score_video.mllm.compress import CompressedInputs
    from score_video.mllm.wrapping import Wrapping

AnySelection = SelectionRule | Literal["diverse"]
SELECTIONS: tuple[str, ...] = (*get_args(SelectionRule), "diverse")
"""How logits or scores may pick: by :func:`score_ext.select`, or by :func:`score_video.diverse.select`."""

NEEDS_NO_PLACES = ("uniform", "random", "divprune", "divprune-whitened")
"""Methods that select by a rule of their own and do not look at where tokens are."""

PRETRAINED = "pretrained"
"""What :meth:`Compressor.from_pretrained` calls the policy that comes with the package."""


def _former_seed(kind: type[Compressor]) -> type[Compressor]:
    """Decorates :class:`Compressor`, of which ``seed`` was a field up to 0.2."""
    kind.__init__ = former_seed(kind.__init__)  # type: ignore[method-assign]
    return kind


@renamed_fields(law="selection")
@_former_seed
@dataclass(frozen=True, eq=False)
class Compressor:
    """Decides which visual tokens of a video a language model gets to see.

    Attributes:
        method: a policy; the name of a training-free method (:data:`score_video.methods.METHODS`), or
            :class:`score_video.methods.RandomMethod` of any seed; or a rule of your own, any object with
            ``scores(videos) -> float32 [L]``, 0 or more, the larger the sooner kept
            (:class:`score_video.methods.ScoringRule`), or with ``select`` (:class:`score_video.packed.Selector`). Given
            nothing, or "pretrained", it is :func:`score_video.policy.pretrained_policy`, for tokens of any vision
            tower: behind ``before_tower`` the one that was trained there.
        retention: the fraction of tokens kept, in (0, 1], exactly ``keep_count`` of each video; or
            :class:`AdaptiveRetention`, which needs a policy.
        selection: how logits or scores pick: "diverse" (:mod:`score_video.diverse`), which looks at the tokens too, so
            that copies of what is kept come last; or "systematic" and "topk" of :func:`score_ext.select`, which do not,
            and are quicker. None: "diverse" for a policy, "topk" for a score, nothing for a method that selects by a
            rule of its own.
        before_tower: another compressor, which chooses from small pictures of the tokens what the vision tower sees, so
            that the tower does only that; this one then chooses among what is left (docs/before_the_tower.md). None:
            the tower sees everything. Its retention is a fraction, and at least this one's, which has to be one too.
        halo: with ``before_tower``, how many rings of neighbours the tower sees besides.

    Raises:
        TypeError, ScoreError: a value of the wrong type, out of range or that does not go with the others.
    """

    method: SurprisePolicy | RandomMethod | ScoringRule | Selector | str = PRETRAINED
    retention: float | AdaptiveRetention = 0.1
    selection: AnySelection | None = None
    before_tower: Compressor | None = None
    halo: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "_elsewhere", {})
        if self.method == PRETRAINED:
            object.__setattr__(self, "method", pretrained_policy(behind_gate=self.before_tower is not None))
        method = self.method
        known = isinstance(method, SurprisePolicy) or self._rule is not None  # raises for a name that there is not
        if not known and not hasattr(method, "scores") and not hasattr(method, "select"):
            raise TypeError(
                f"method must be a policy, a name, or an object with scores() or select(), got {type(method).__name__}"
            )
        if not isinstance(self.retention, AdaptiveRetention):
            check_fraction("retention", self.retention)
        elif not isinstance(method, SurprisePolicy):
            raise ScoreError(f"retention must be a fraction for {method!r}: only a policy expects a count")
        if self.selection not in (None, *SELECTIONS):
            raise ScoreError(f"selection must be 'systematic', 'topk', 'diverse' or None, got {self.selection!r}")
        if self._selects and self.selection is not None:
            raise ScoreError(
                f"selection must be None for {method!r}, which selects by a rule of its own: {self.selection!r}"
            )
        _check_gate(self)

    @property
    def gate(self) -> Gate | None:
        """What chooses before the vision tower; None: nothing does."""
        if self.before_tower is None:
            return None
        method = self.before_tower.method
        return Gate(self.before_tower, self.halo, method if isinstance(method, str) else type(method).__name__)

    def identity(self) -> str | None:
        """A hash of all that a choice follows from beside the tokens; None for a rule of your own, which is code."""
        config: dict[str, Any] = {"retention": self.plain_retention, "selection": self.selection_used}
        digest = hashlib.sha256()
        if isinstance(self.method, SurprisePolicy):
            config["policy"] = asdict(self.method.config)
            for name, weight in self.method.state_dict().items():
                digest.update(name.encode())
                digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif self._rule is None:
            return None
        else:
            config |= {"method": self._rule.name, "seed": self.seed}
        digest.update(json.dumps(config, sort_keys=True).encode())
        return digest.hexdigest()

    @property
    def _rule(self) -> Method | None:
        """The training-free method; None for a policy, and for a rule of a user's own."""
        if isinstance(self.method, str):
            return find_method(self.method)
        return self.method if isinstance(self.method, RandomMethod) else None

    @property
    def _selects(self) -> bool:
        """Whether the method returns what it keeps, not a score."""
        if self._rule is not None:
            return isinstance(self._rule, IndexMethod)
        return hasattr(self.method, "select") and not isinstance(self.method, SurprisePolicy)

    @property
    def plain_retention(self) -> float | dict[str, float]:
        """``retention`` as JSON has it: the fraction, or floor and cap by name."""
        return asdict(self.retention) if isinstance(self.retention, AdaptiveRetention) else self.retention

    @property
    def seed(self) -> int | None:
        """What the random rule draws from; None for anything else."""
        return self._rule.seed if isinstance(self._rule, RandomMethod) else None

    @property
    def selection_used(self) -> AnySelection | None:
        """``selection``, or what it stands for where that is None; None for a method that selects by its own rule."""
        if isinstance(self.method, SurprisePolicy):
            return self.selection or "diverse"
        return None if self._selects else self.selection or "topk"

    @property
    def needs_question(self) -> bool:
        """Whether :meth:`select` is to be given the question: a policy, or an object of your own, that looks at it."""
        if isinstance(self.method, SurprisePolicy):
            return self.method.config.question_width > 0
        return needs_question(self.method)

    @renamed_arguments(pictures="visual_layout")
    def __call__(self, model: Any, *, visual_layout: VisualLayout | None = None, **inputs: Any) -> CompressedInputs:
        """:func:`score_video.mllm.compress_inputs` of what a processor returned: ``compressor(model, **inputs)``."""
        from score_video.mllm.compress import compress_inputs  # it builds on this module

        return compress_inputs(model, inputs, self, visual_layout=visual_layout)

    def wrap(self, model: Any) -> Wrapping:
        """Makes a model compress by itself: :func:`score_video.mllm.wrap`. ``with compressor.wrap(model): ...``"""
        from score_video.mllm.wrapping import wrap  # it builds on this module

        return wrap(model, self)

    def select(
        self, videos: PackedVideos, question: Tensor | None = None, keep: Sequence[int] | None = None
    ) -> Selection:
        """Which tokens to keep. Without ``keep`` it waits for the device, because how many there are has to be known.

        Args:
            videos: B videos of L tokens. For a policy that is on another device a copy on theirs is made, and kept.
            question: [B, E] for a policy that sees the question, else None.
            keep: B counts, 0 to each video's length, to be kept instead of what the retention says: for engines that
                fix them before there are tokens. A policy with state "residual" and the methods "surprise",
                "surprise-l2" and "norm" then do not wait for the device.

        Raises:
            TypeError, ScoreError: the videos, the question or ``keep`` do not fit each other or what decides, a
                video's logits hold NaN where the count is adaptive, a rule of your own returned something else than
                it should, or there is a ``before_tower``, which needs pixels.
        """
        if self.before_tower is not None:
            raise ScoreError(
                "before_tower must be None to choose among features: it chooses from pixels, through compress_inputs, "
                "wrap and the commands that run a tower (docs/before_the_tower.md)"
            )
        return self._select(videos, question, keep, None)

    def select_seen(
        self,
        videos: PackedVideos,
        seen: Seen | None,
        question: Tensor | None = None,
        keep: Sequence[int] | None = None,
    ) -> Selection:
        """Which tokens to keep of those that the gate before the vision tower kept.

        Each video keeps what its retention says of all its tokens, or all that the gate kept if that is less.

        Args:
            videos: B videos of L tokens; what was not seen is filled in (:func:`score_video.before_tower.filled`).
            seen: what was; None: everything, as for :meth:`select`.
            question, keep: as for :meth:`select`.

        Raises:
            TypeError, ScoreError: as :meth:`select`.
        """
        return self.select(videos, question, keep) if seen is None else self._select(videos, question, keep, seen)

    @torch.no_grad()
    def _select(
        self, videos: PackedVideos, question: Tensor | None, keep: Sequence[int] | None, seen: Seen | None
    ) -> Selection:
        """Of all tokens, or of those that were seen."""
        method, rule, logits = self.method, self._rule, None
        if seen is not None:
            _check_behind(self)
        if isinstance(method, SurprisePolicy):
            logits = self.logits(videos, question, seen)
        elif question is not None and (rule is not None or not self._selects):
            raise ScoreError(f"question must be None: {method!r} does not see it")
        counts = counts_of(videos, self.retention, logits) if keep is None else given_counts(videos, keep)
        if self._selects and rule is None:
            return _checked(cast(Selector, method).select(videos, question, counts), videos, counts)
        if seen is not None:
            left_of_each = seen.kept.keep.tolist() if seen.counts is None else seen.counts
            counts = [min(count, left) for count, left in zip(counts, left_of_each, strict=True)]
        kept = torch.tensor(counts, dtype=torch.int32, device="cpu").to(videos.tokens.device, non_blocking=True)
        left = videos if seen is None else only(videos, seen.kept)
        if isinstance(rule, IndexMethod):
            index = rule.index(left.tokens, left.cu_seqlens, left.tokens_per_frame, kept)
        else:
            scores = self._scores(videos, kept) if logits is None else logits
            scores = scores if seen is None else scores[seen.kept.index]
            index = self.pick(left, scores, kept, sum(counts))
        return Selection(index if seen is None else seen.kept.index[index], kept)

    def pick(self, videos: PackedVideos, scores: Tensor, keep: Tensor, total_keep: int) -> Tensor:
        """int64 [K], ascending: the rows that the selection picks by logits, or by scores that are there already.

        Args:
            videos: B videos of L tokens.
            scores: float32 [L], a policy's :meth:`logits`, or a method's scores (for "systematic" and "diverse" their
                logarithms).
            keep: int32 [B], 0 to each video's length.
            total_keep: the sum of keep, K.
        """
        if self.selection_used == "diverse":
            policy = self.method if isinstance(self.method, SurprisePolicy) else None
            weight = diverse.WEIGHT if policy is None else policy.config.distance_weight
            return diverse.select(videos, scores, keep, total_keep, weight)
        return score_ext.select(scores, videos.cu_seqlens, keep, total_keep, self.selection_used or "topk")

    def _scores(self, videos: PackedVideos, kept: Tensor) -> Tensor:
        """float32 [L], what the selection goes by, of a method that is no policy and does not select by itself."""
        rule, how = self._rule, self.selection_used
        if isinstance(rule, ScoreMethod):
            packed = videos.tokens, videos.cu_seqlens, videos.tokens_per_frame, kept
            return rule.select_by(*packed, "topk" if how == "topk" else "systematic")
        scores = cast(ScoringRule, self.method).scores(videos)
        if not isinstance(scores, Tensor):
            raise ScoreError(
                f"scores of {self.method!r} must be a tensor, float [{len(videos.tokens)}], got {described(scores)}"
            )
        if scores.shape != videos.tokens.shape[:1] or not scores.is_floating_point():
            raise ScoreError(
                f"scores of {self.method!r} must be float [{len(videos.tokens)}], one for each token, "
                f"got {described(scores)}"
            )
        return scores.float() if how == "topk" else scores.float().log()

    @torch.no_grad()
    def logits(self, videos: PackedVideos, question: Tensor | None = None, seen: Seen | None = None) -> Tensor:
        """What a policy makes of the tokens, float32 [L], whatever the retention: :meth:`select` goes by it.

        Args:
            videos, question: as for :meth:`select`.
            seen: as for :meth:`select_seen`.

        Raises:
            TypeError: the method is no policy.
        """
        if not isinstance(self.method, SurprisePolicy):
            raise TypeError(f"method must be a policy to have logits, got {self.method!r}")
        logits: Tensor = self._policy_on(videos.tokens.device)(videos, question, seen)
        return logits

    def _policy_on(self, device: torch.device) -> SurprisePolicy:
        """The policy; where it is on another device, a copy of it as it is now. The user's own is never moved."""
        policy = self.method
        assert isinstance(policy, SurprisePolicy)
        if policy.device == device:
            return policy
        if any(parameter.is_inference() for parameter in policy.parameters()):
            # made under inference_mode: they keep no count of their changes, so a copy could be out of date
            return copy.deepcopy(policy).to(device=device)
        copies: dict[torch.device, tuple[list[int], SurprisePolicy]] = self.__dict__["_elsewhere"]
        now = [parameter._version for parameter in policy.parameters()]
        if device not in copies or copies[device][0] != now:
            copies[device] = now, copy.deepcopy(policy).to(device=device)
        return copies[device][1]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json, and weights where there is a policy: all of it or nothing.

        A policy's weights are model.safetensors, those of one before the tower before_tower.safetensors.

        Args:
            folder: made if it is not there, in a folder that is. A former compressor (or policy) in it is replaced.

        Raises:
            TypeError: the method is a rule of your own, which is code and not data.
            FileExistsError, NotADirectoryError, FileNotFoundError: ``folder`` holds anything else, is no folder, or has
                no parent.
            OSError: it could not be written.
        """
        self._check_is_data()
        with output_folder(Path(folder), FILES, overwrite=True) as temporary:
            self.write(temporary)

    def write(self, folder: Path) -> None:
        """Writes the files of :meth:`save_pretrained` into a folder that is there, which may hold others."""
        self._check_is_data()
        config = {"model_type": MODEL_TYPE, **self._write_weights(folder / storage.WEIGHTS)}
        if self.before_tower is not None:
            config["before_tower"] = self.before_tower._write_weights(folder / GATE_WEIGHTS)
            config["halo"] = self.halo
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / storage.CONFIG).write_text(text, encoding="utf-8")

    def _write_weights(self, path: Path) -> dict[str, Any]:
        """Writes a policy's weights, and returns what is to be known beside them, as JSON has it."""
        config = {"retention": self.plain_retention, "selection": self.selection}
        if isinstance(self.method, SurprisePolicy):
            storage.save_weights(self.method.state_dict(), path)
            return {**config, "policy": asdict(self.method.config)}
        if isinstance(self.method, RandomMethod):
            return {**config, "method": RANDOM, "seed": self.method.seed}
        return {**config, "method": self.method}

    def _check_is_data(self) -> None:
        for name, one in (("method", self), ("before_tower.method", self.before_tower)):
            if one is not None and not isinstance(one.method, (SurprisePolicy, RandomMethod, str)):
                raise TypeError(f"{name} must be a policy or a name to be saved, got {type(one.method).__name__}")

    @staticmethod
    def from_pretrained(source: str | Path, *, revision: str | None = None, **overrides: Any) -> Compressor:
        """The compressor that a name, a folder or a repository stands for; a policy comes on the CPU, frozen.

        Args:
            source: a folder that ``score train`` or the ``save_pretrained`` of a compressor or a policy wrote; the id
                of a repository with the same on the Hugging Face hub, "owner/name"; "pretrained", the policy that comes
                with the package; or the name of a training-free method. A folder of such a name is reached by "./name".
            revision: the hub's branch, tag or commit.
            overrides: ``retention``, ``selection``, ``before_tower``, ``halo``, or the random rule's ``seed``, that are
                to be otherwise than saved (or, where nothing is saved, than the defaults); None leaves them.

        Raises:
            FileNotFoundError: there is no such folder, and it cannot be an id; or it has no config or weights.
            TypeError: an override that there is not.
            ScoreError: the config has a key that is not known, lacks one or has a bad value, or the weights are damaged
                or of another policy (names the file); or an override does not go with what was loaded.
            OSError: as the hub answered.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        given = with_new_names(given, {"law": "selection"}, up=1)
        if unknown := sorted(set(overrides) - {"retention", "selection", "before_tower", "halo", "seed", "law"}):
            raise TypeError(
                f"there is no override {unknown[0]!r}: retention, selection, before_tower, halo and seed can be given"
            )
        seed = given.pop("seed", None)
        if source == PRETRAINED:
            compressor = Compressor(PRETRAINED, **given)
        else:
            compressor = Compressor._load(source, revision)
            compressor = replace(compressor, **given) if given else compressor
        return compressor if seed is None else replace(compressor, method=with_seed(compressor.method, seed))

    @staticmethod
    def _load(source: str | Path, revision: str | None) -> Compressor:
        """What :meth:`from_pretrained` loads, as it was saved."""
        if isinstance(source, str) and source in METHODS:
            return Compressor(source)
        path = storage.find_file(source, storage.CONFIG, revision)
        config = storage.read_config(path)
        if config.get("model_type") == POLICY_TYPE:
            saved: dict[str, Any] = {"method": SurprisePolicy.from_pretrained(source, revision=revision)}
        else:
            saved = read_saved(path, config)
            if "policy" in config:
                saved["method"] = SurprisePolicy.from_pretrained(source, revision=revision)
            if "before_tower" in config:
                saved["before_tower"] = Compressor._load_gate(path, config["before_tower"], source, revision)
        return Compressor._made(path, saved)

    @staticmethod
    def _load_gate(path: Path, config: Any, source: str | Path, revision: str | None) -> Compressor:
        if not isinstance(config, dict):
            raise ScoreError(f"{path}: before_tower must be an object, got {type(config).__name__}")
        if nested := [name for name in ("before_tower", "halo") if name in config]:
            raise ScoreError(f"{path}: before_tower has an unknown key {nested[0]!r}")
        saved = read_saved(path, {"model_type": MODEL_TYPE, **config})
        if "policy" in config:
            policy = {"model_type": POLICY_TYPE, **config["policy"]}
            saved["method"] = SurprisePolicy.of_files(path, policy, storage.find_file(source, GATE_WEIGHTS, revision))
        return Compressor._made(path, saved)

    @staticmethod
    def _made(path: Path, saved: dict[str, Any]) -> Compressor:
        """Of arguments that were read from a file, which errors name."""
        if isinstance(saved["method"], SurprisePolicy):
            saved["method"].requires_grad_(False)
        try:
            if isinstance(retention := saved.get("retention"), dict):
                saved["retention"] = AdaptiveRetention(**retention)
            return Compressor(**saved)
        except (TypeError, ValueError) as error:
            raise ScoreError(f"{path}: {error}") from None


def _checked(selection: Selection, videos: PackedVideos, counts: Sequence[int]) -> Selection:
    """What a rule of a user's own returned. Raises ScoreError where it is not ``counts`` rows of each video."""
    tensors = isinstance(selection, Selection) and all(
        isinstance(part, Tensor) for part in (selection.index, selection.keep)
    )
    if not tensors or selection.keep.tolist() != list(counts):
        kept = selection.keep.tolist() if tensors else selection
        raise ScoreError(f"select() must return a Selection that keeps {list(counts)} of each video, got {kept}")
    try:
        check_selection(selection, videos)
    except ScoreError as error:
        raise ScoreError(f"select() must return ascending rows, {list(counts)} of each video: {error}") from None
    return selection


def _check_gate(compressor: Compressor) -> None:
    """Raises TypeError or ScoreError for what cannot stand before the tower, or behind a choice made there."""
    gate, halo = compressor.before_tower, compressor.halo
    if not is_integer(halo):
        raise TypeError(f"halo must be an integer, got {halo!r}")
    if halo < 0 or (halo and gate is None):
        raise ScoreError(f"halo must be {'0 or more' if halo < 0 else '0 without before_tower'}, got {halo}")
    if gate is None:
        return
    if not isinstance(gate, Compressor):
        raise TypeError(f"before_tower must be a Compressor or None, got {type(gate).__name__}")
    if gate.before_tower is not None:
        raise ScoreError("before_tower must not have a before_tower of its own")
    if gate.needs_question:
        raise ScoreError("before_tower must not look at the question: there are no features to compare it with")
    for name, one in (("before_tower.retention", gate), ("retention", compressor)):
        if isinstance(one.retention, AdaptiveRetention):
            raise ScoreError(
                f"{name} must be a fraction where something is chosen before the tower, got {one.retention}"
            )
    if gate.retention < compressor.retention:  # type: ignore[operator]
        raise ScoreError(
            f"before_tower.retention must be at least retention, {compressor.retention}, or there is not so much left "
            f"to choose from: got {gate.retention}"
        )
    if isinstance(compressor.method, SurprisePolicy) and not compressor.method.config.behind_gate:
        warnings.warn(
            "the policy was not trained behind a choice before the vision tower: what it is not shown is filled in, "
            'which it does not know (docs/before_the_tower.md). "divprune" does not look at places',
            ScoreWarning,
            stacklevel=6,  # whoever made the compressor
        )
    _check_behind(compressor)


def _check_behind(compressor: Compressor) -> None:
    """Raises ScoreError for what cannot choose among what a gate before the tower has left."""
    rule = compressor._rule
    if compressor._selects and (rule is None or rule.name not in NEEDS_NO_PLACES):
        raise ScoreError(
            f"method must not be {compressor.method!r} behind before_tower: it goes by where tokens are, and does not "
            f"know which are missing. Policies, what gives scores, and {', '.join(NEEDS_NO_PLACES)} can stand there"
        )
