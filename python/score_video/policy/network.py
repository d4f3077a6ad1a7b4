"""The policy network: which tokens of a video are worth keeping, one logit each."""

from __future__ import annotations

import itertools
import math
from dataclasses import field, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers import initialization as init

import score_ext
from score_video.packed import PackedVideos
from score_video.policy.change import CHANGE_WIDTH, change_features
from score_video.policy.position import POSITION_WIDTH, position_features
from score_video.policy.relative import APPEARANCE_WIDTH, TEMPORAL_WIDTH, relative_state

_QUESTION_COLUMNS = 16
_OUTPUT_SPREAD = 0.1  # of the logits before training, at most about


class SurprisePolicyConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """What a :class:`SurprisePolicy` is made of.

    Attributes:
        token_width: D of the tokens, at least 1; with state "relative" it means nothing and may be left 0.
        state: "residual": [LayerNorm(x) ; LayerNorm(dX) ; size of the change (:mod:`score_video.policy.change`) ;
            position], for the tower it was trained on. "relative":
            [:func:`score_video.policy.relative.relative_state` ; position],
            for any tower.
        hidden_sizes: widths of the one or two hidden layers.
        use_token: whether x is in the state; in the relative one, its appearance part.
        use_residual: whether dX and its size are in the state; in the relative one, its temporal part.
        use_position: whether the position is in the state.
        question_width: E of the question's embedding; 0 for a policy that does not see the question.
        initial_retention: in (0, 1); before training every token's logit is close to logit(initial_retention).

    Raises:
        TypeError, ValueError: a value of the wrong type or out of range, every part of the state switched off, or a
            name that is not known.
    """

    model_type = "score_policy"
    has_no_defaults_at_init = True  # nothing is to be made of it without a token_width

    token_width: int = 0
    state: Literal["residual", "relative"] = "residual"
    hidden_sizes: list[int] = field(default_factory=lambda: [64, 64])
    use_token: bool = True
    use_residual: bool = True
    use_position: bool = True
    question_width: int = 0
    initial_retention: float = 0.1

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("model_type", None)  # comes along when read from a file
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        # transformers makes attributes of whatever it does not know; here a misspelt option would be a silent default
        known = {*vars(PretrainedConfig()), *(own.name for own in fields(self))}
        if unknown := [name for name in vars(self) if name not in known and not name.startswith("_")]:
            raise ValueError(f"a policy's config has no {unknown[0]!r}")
        self._check()

    def _check(self) -> None:
        for name in ("use_token", "use_residual", "use_position"):
            if not isinstance(value := getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, got {value!r}")
        if not (self.use_token or self.use_residual or self.use_position):
            raise ValueError("use_token, use_residual and use_position are all off: the state is empty")
        if self.state not in ("residual", "relative"):
            raise ValueError(f"state must be 'residual' or 'relative', got {self.state!r}")
        if not isinstance(self.hidden_sizes, list) or len(self.hidden_sizes) not in (1, 2):
            raise ValueError(f"hidden_sizes must be a list of one or two sizes, got {self.hidden_sizes!r}")
        for size in self.hidden_sizes:
            _check_count("hidden_sizes", size, 1)
        _check_count("token_width", self.token_width, 1 if self.state == "residual" else 0)
        _check_count("question_width", self.question_width, 0)
        if isinstance(self.initial_retention, bool) or not isinstance(self.initial_retention, (int, float)):
            raise TypeError(f"initial_retention must be a number, got {self.initial_retention!r}")
        if not 0 < self.initial_retention < 1:
            raise ValueError(f"initial_retention must lie between 0 and 1, got {self.initial_retention}")


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


class SurprisePolicy(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A small MLP over each token's state; its logits come from :func:`score_ext.policy_logits`, always.

    The state is [LayerNorm(x) ; LayerNorm(dX) ; size of the change ; position], dX = x_t - x_{t-1}, or the relative
    one, as the config says. Of the state and network SCORE only publishes that inter-frame residuals are in it; the
    rest is our reading. Where
    it sees the question, 16 columns made of the question's embedding, LayerNorm and a linear layer, stand beside the
    position of each token of its video.

    Parameters may have any dtype of :func:`score_ext.policy_logits`, the tokens another one.
    """

    config_class = SurprisePolicyConfig
    base_model_prefix = "policy"
    config: SurprisePolicyConfig

    def __init__(self, config: SurprisePolicyConfig) -> None:
        super().__init__(config)
        if config.state == "relative":
            columns = TEMPORAL_WIDTH * config.use_residual + APPEARANCE_WIDTH * config.use_token
        else:
            columns = config.token_width * (config.use_residual + config.use_token) + CHANGE_WIDTH * config.use_residual
        columns += POSITION_WIDTH * config.use_position
        if config.question_width:
            self.question = nn.Linear(config.question_width, _QUESTION_COLUMNS)
            columns += _QUESTION_COLUMNS
        sizes = [columns, *config.hidden_sizes]
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        self.output = nn.Linear(sizes[-1], 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, videos: PackedVideos, question: Tensor | None = None) -> Tensor:
        """The logits of keeping.

        Args:
            videos: B videos of L tokens, D = ``config.token_width`` unless the state is relative.
            question: [B, E] floating point, E = ``config.question_width``; None for a policy that does not see it.

        Returns:
            float32 [L], differentiable in the parameters.

        Raises:
            TypeError, ValueError: tokens or question do not fit the policy, or the videos' sizes do not fit.
        """
        self._check_input(videos, question)
        config = self.config
        parts = []
        if config.state == "relative":
            relative = relative_state(videos)
            parts += [relative[:, :TEMPORAL_WIDTH]] if config.use_residual else []
            parts += [relative[:, TEMPORAL_WIDTH:]] if config.use_token else []
        elif config.use_residual:
            parts.append(change_features(videos))
        if config.use_position:
            parts.append(position_features(videos))
        if question is not None:
            question = question.to(self.question.weight.dtype)
            columns = self.question(nn.functional.layer_norm(question, question.shape[1:])).float()
            # index_select, because its gradient is summed in a fixed order on the CPU
            parts.append(columns.index_select(0, videos.video_of_token))
        direct = config.state == "residual"
        return score_ext.policy_logits(
            videos.tokens,
            videos.cu_seqlens,
            videos.tokens_per_frame,
            [(layer.weight, layer.bias) for layer in (*self.hidden, self.output)],
            torch.cat(parts, dim=1) if parts else None,
            direct and config.use_token,
            direct and config.use_residual,
        )

    def _check_input(self, videos: PackedVideos, question: Tensor | None) -> None:
        width = self.config.question_width
        if self.config.state == "residual" and videos.tokens.shape[1:] != (self.config.token_width,):
            got, wanted = list(videos.tokens.shape), self.config.token_width
            raise ValueError(f"tokens must be [L, {wanted}], the token_width of this policy, got {got}")
        if question is None and width:
            raise ValueError(f"question must be [{videos.num_videos}, {width}] for this policy, got None")
        if question is not None and not width:
            raise ValueError("question must be None: this policy does not see it (its question_width is 0)")
        if question is not None and question.shape != (videos.num_videos, width):
            raise ValueError(f"question must be [{videos.num_videos}, {width}], got {list(question.shape)}")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Layers whose outputs begin with about the spread of their inputs, and logits all near the initial one."""
        if not isinstance(module, nn.Linear):
            return
        spread = _OUTPUT_SPREAD if module is self.output else 1.0
        init.normal_(module.weight, std=spread * module.in_features**-0.5)
        retention = self.config.initial_retention
        init.constant_(module.bias, math.log(retention / (1 - retention)) if module is self.output else 0.0)


def expected_count(logits: Tensor, videos: PackedVideos) -> Tensor:
    """How many tokens of each video would be kept if each were kept by itself with probability sigmoid(logit).

    Args:
        logits: float32 [L]. Differentiable.
        videos: the videos they are of.

    Returns:
        float32 [B]; 0 for an empty video.

    Raises:
        ValueError: ``logits`` is not one number a token.
    """
    if logits.shape != videos.tokens.shape[:1]:
        raise ValueError(f"logits must be [{len(videos.tokens)}], one for each token, got {list(logits.shape)}")
    # float64: the order of the sum does not show, wherever it is run
    total = torch.zeros(videos.num_videos, dtype=torch.float64, device=logits.device)
    return total.index_add(0, videos.video_of_token, logits.double().sigmoid()).float()


AutoConfig.register("score_policy", SurprisePolicyConfig)
AutoModel.register(SurprisePolicyConfig, SurprisePolicy)
