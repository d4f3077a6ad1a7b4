"""What a policy is made of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from score_video.checks import is_integer, is_number
from score_video.errors import ScoreError

MODEL_TYPE = "score_policy"
"""What config.json calls a policy."""

_OF_TRANSFORMERS = frozenset(
    {"model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "_name_or_path"}
)
"""Keys that folders of 0.1 have beside our own."""


SINCE_0_1 = ("use_change", "first_residual", "distance_weight", "behind_gate", "use_seen", "use_whitened")
"""What configs that 0.1 saved are without."""


@dataclass
class SurprisePolicyConfig:
    """What a :class:`score_video.policy.SurprisePolicy` is made of.

    Attributes:
        token_width: D of the tokens, at least 1; with state "relative" it means nothing and may be left 0.
        state: "residual": [LayerNorm(x) ; LayerNorm(dX) ; size of the change (:mod:`score_video.policy.change`) ;
            position], for the tower it was trained on. "relative":
            [:func:`score_video.policy.relative.relative_state` ; position], for any tower.
        hidden_sizes: widths of the one or two hidden layers.
        use_token: whether x is in the state; in the relative one, its appearance part.
        use_residual: whether dX and its size are in the state; in the relative one, its temporal part.
        use_position: whether the position is in the state.
        use_change: whether the size of the change is, beside dX; with state "relative" it means nothing.
        use_seen: whether it is which of the tokens around a token the vision tower has seen, and which are filled in
            (:mod:`score_video.policy.seen`): for policies behind a choice before the tower (docs/before_the_tower.md).
        use_whitened: with state "relative", whether it is of the tokens as they are whitened too
            (:mod:`score_video.whitened`), both parts. Without ``use_token`` and ``use_residual`` it is of these alone,
            and wide tokens are gone through once less.
        first_residual: dX in a first frame, which has none before it. "zero"; or "token": the token itself, as the
            paper's figure draws it. For state "residual" alone.
        question_width: E of the question's embedding; 0 for a policy that does not see the question.
        distance_weight: above 0; selected by "diverse", how much the logarithm of a distance counts beside a logit
            (:mod:`score_video.diverse`). Larger for a tower that the policy never saw, where its logits are worth less.
        behind_gate: whether it was trained behind a choice before the vision tower; a training sets it.
        initial_retention: p in (0, 1); before training every token's logit is close to logit(p).

    Raises:
        TypeError, ScoreError: a value of the wrong type or out of range, or every part of the state switched off.
    """

    token_width: int = 0
    state: Literal["residual", "relative"] = "residual"
    hidden_sizes: list[int] = field(default_factory=lambda: [64, 64])
    use_token: bool = True
    use_residual: bool = True
    use_position: bool = True
    use_change: bool = True
    use_seen: bool = False
    use_whitened: bool = False
    first_residual: Literal["zero", "token"] = "zero"
    question_width: int = 0
    distance_weight: float = 6.0
    initial_retention: float = 0.1
    behind_gate: bool = False

    def __post_init__(self) -> None:
        for name in (own.name for own in fields(self) if own.type == "bool"):
            if not isinstance(value := getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, got {value!r}")
        if not (self.use_token or self.use_residual or self.use_position or self.use_whitened):
            raise ScoreError("use_token, use_residual, use_position and use_whitened are all off: the state is empty")
        if self.state not in ("residual", "relative"):
            raise ScoreError(f"state must be 'residual' or 'relative', got {self.state!r}")
        if self.use_whitened and self.state != "relative":
            raise ScoreError("use_whitened must be False with state 'residual', got True")
        if self.first_residual not in ("zero", "token"):
            raise ScoreError(f"first_residual must be 'zero' or 'token', got {self.first_residual!r}")
        if self.first_residual == "token" and not (self.state == "residual" and self.use_residual):
            raise ScoreError("first_residual must be 'zero' where dX is not in the state, got 'token'")
        if not isinstance(self.hidden_sizes, list) or len(self.hidden_sizes) not in (1, 2):
            raise ScoreError(f"hidden_sizes must be a list of one or two sizes, got {self.hidden_sizes!r}")
        for size in self.hidden_sizes:
            _check_count("hidden_sizes", size, 1)
        _check_count("token_width", self.token_width, 1 if self.state == "residual" else 0)
        _check_count("question_width", self.question_width, 0)
        if not is_number(self.distance_weight):
            raise TypeError(f"distance_weight must be a number, got {self.distance_weight!r}")
        if not 0 < self.distance_weight < math.inf:
            raise ScoreError(f"distance_weight must be above 0 and finite, got {self.distance_weight}")
        if not is_number(self.initial_retention):
            raise TypeError(f"initial_retention must be a number, got {self.initial_retention!r}")
        if not 0 < self.initial_retention < 1:
            raise ScoreError(f"initial_retention must lie between 0 and 1, got {self.initial_retention}")

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> SurprisePolicyConfig:
        """The config that :meth:`to_dict`, or a config.json of 0.1, holds.

        Raises:
            TypeError, ScoreError: as the class, and for a key that is not known.
        """
        known = {own.name for own in fields(SurprisePolicyConfig)}
        if unknown := sorted(set(values) - known - _OF_TRANSFORMERS):
            raise ScoreError(f"a policy's config has no {unknown[0]!r}")
        return SurprisePolicyConfig(**{name: value for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """All attributes, and ``model_type``; as JSON can hold it."""
        return {"model_type": MODEL_TYPE, **asdict(self)}

    def to_json_string(self) -> str:
        """What config.json holds, and what transformers' reporters write down of a model."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"


def _check_count(name: str, value: object, least: int) -> None:
    if not is_integer(value):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ScoreError(f"{name} must be at least {least}, got {value}")
