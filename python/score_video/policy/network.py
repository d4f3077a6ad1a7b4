"""The policy network: which tokens of a video are worth keeping, one logit each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import score_ext
from score_video.before_tower import Seen
from score_video.errors import ScoreError
from score_video.files import output_file
from score_video.packed import PackedVideos, check_sizes
from score_video.policy import storage
from score_video.policy.change import CHANGE_WIDTH, change_features
from score_video.policy.config import MODEL_TYPE, SurprisePolicyConfig
from score_video.policy.position import POSITION_WIDTH, position_features
from score_video.policy.relative import APPEARANCE_WIDTH, RELATIVE_WIDTH, TEMPORAL_WIDTH, relative_state
from score_video.policy.seen import SEEN_WIDTH, seen_features

_QUESTION_COLUMNS = 16
_OUTPUT_SPREAD = 0.1  # of the logits before training, at most about


class SurprisePolicy(nn.Module):
    """A small MLP over each token's state; its logits come from one op, :func:`score_ext.policy_logits` for the state
    "residual", :func:`score_ext.relative_logits` for "relative".

    The state is [LayerNorm(x) ; LayerNorm(dX) ; size of the change ; position], dX = x_t - x_{t-1}, or the relative
    one, as the config says; and what the vision tower has seen, if the policy looks at that. The paper's figure has
    [x ; dX], an MLP and a sigmoid; LayerNorm, the widths and what else is in the state are ours. Where it sees the
    question, 16 columns made of the question's embedding, LayerNorm and a linear layer, stand beside the position of
    each token of its video.

    Parameters may have any dtype of :func:`score_ext.policy_logits`, the tokens another one.
    """

    def __init__(self, config: SurprisePolicyConfig) -> None:
        super().__init__()
        self.config = config
        if config.state == "relative":
            columns = TEMPORAL_WIDTH * config.use_residual + APPEARANCE_WIDTH * config.use_token
            columns += RELATIVE_WIDTH * config.use_whitened
        else:
            columns = config.token_width * (config.use_residual + config.use_token) + CHANGE_WIDTH * self._sees_change
        columns += POSITION_WIDTH * config.use_position + SEEN_WIDTH * config.use_seen
        if config.question_width:
            self.question = nn.Linear(config.question_width, _QUESTION_COLUMNS)
            columns += _QUESTION_COLUMNS
        sizes = [columns, *config.hidden_sizes]
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        self.output = nn.Linear(sizes[-1], 1)
        self.apply(self._init_weights)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.output.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.output.weight.dtype

    def forward(self, videos: PackedVideos, question: Tensor | None = None, seen: Seen | None = None) -> Tensor:
        """The logits of keeping.

        Args:
            videos: B videos of L tokens, D = ``config.token_width`` unless the state is relative.
            question: [B, E] floating point, E = ``config.question_width``; None for a policy that does not see it.
            seen: what the vision tower has seen of them, for a policy with ``use_seen``; the others do not look at it.
                None: everything.

        Returns:
            float32 [L], differentiable in the parameters.

        Raises:
            TypeError, ValueError: tokens or question do not fit the policy, or the videos' sizes do not fit.
        """
        self._check_input(videos, question)
        config = self.config
        sizes = videos.cu_seqlens, videos.tokens_per_frame
        layers = [(layer.weight, layer.bias) for layer in (*self.hidden, self.output)]
        more = [seen_features(videos, seen)] if config.use_seen else []
        whitened_alone = config.use_whitened and not (config.use_token or config.use_residual)
        if config.use_whitened and not whitened_alone:
            more += [relative_state(replace(videos.segments, tokens=videos.whitened))]
        more += [] if question is None else [self._question_columns(videos, question)]
        if config.state == "relative":
            check_sizes(videos)
            features = torch.cat(more, dim=1) if more else None
            tokens, parts = videos.tokens, (config.use_token, config.use_residual, config.use_position)
            if whitened_alone:  # the op makes the state of these, and nothing goes through the wide ones again
                tokens, parts = videos.whitened, (True, True, config.use_position)
                layers[0] = (self._whitened_first(), self.hidden[0].bias)
            own = videos.segments
            sizes = own.cu_seqlens, own.tokens_per_frame
            return score_ext.relative_logits(tokens, *sizes, own.columns, own.num_frames, layers, features, *parts)
        columns = [change_features(videos)] if self._sees_change else []
        columns += [position_features(videos)] if config.use_position else []
        columns += more
        features = torch.cat(columns, dim=1) if columns else None
        logits = score_ext.policy_logits(videos.tokens, *sizes, layers, features, config.use_token, config.use_residual)
        if config.first_residual == "zero":
            return logits
        # There LayerNorm(dX) is LayerNorm(x), so that the token's columns alone do, with the weights of both.
        layers[0] = (self._first_frame_weight(), self.hidden[0].bias)
        of_first = score_ext.policy_logits(videos.tokens, *sizes, layers, features, use_residual=False)
        return torch.where(videos.in_first_frame, of_first, logits)

    @property
    def _sees_change(self) -> bool:
        return self.config.use_residual and self.config.use_change

    def _first_frame_weight(self) -> Tensor:
        """[H1, D + P]: that of the first layer where dX is x."""
        weight: Tensor = self.hidden[0].weight  # type: ignore[assignment]
        width = self.config.token_width
        if not self.config.use_token:
            return weight
        return torch.cat([weight[:, :width] + weight[:, width : 2 * width], weight[:, 2 * width :]], dim=1)

    def _whitened_first(self) -> Tensor:
        """[H1, C]: that of the first layer, whose columns are [position ; seen ; whitened ; question], for a state that
        begins with the whitened ones."""
        weight: Tensor = self.hidden[0].weight  # type: ignore[assignment]
        begin = POSITION_WIDTH * self.config.use_position + SEEN_WIDTH * self.config.use_seen
        end = begin + RELATIVE_WIDTH
        return torch.cat([weight[:, begin:end], weight[:, :begin], weight[:, end:]], dim=1)

    def _question_columns(self, videos: PackedVideos, question: Tensor) -> Tensor:
        """float32 [L, 16], the same for every token of a video."""
        question = question.to(self.question.weight.dtype)
        columns = self.question(nn.functional.layer_norm(question, question.shape[1:])).float()
        # index_select, because its gradient is summed in a fixed order on the CPU
        of_token: Tensor = columns.index_select(0, videos.video_of_token)
        return of_token

    @staticmethod
    def from_pretrained(source: str | Path, *, revision: str | None = None) -> SurprisePolicy:
        """Loads a policy: what :meth:`save_pretrained`, ``score train`` or a compressor with a policy wrote.

        Args:
            source: a folder, or the id of a repository on the Hugging Face hub, "owner/name".
            revision: the hub's branch, tag or commit.

        Returns:
            the policy on the CPU, in the dtype it was saved in, in eval mode; its parameters can be trained.

        Raises:
            FileNotFoundError: there is no such folder, and it cannot be an id; or it has no config or weights.
            ScoreError: it holds something else, or is damaged; names the file.
            OSError: as the hub answered.
        """
        path = storage.find_file(source, storage.CONFIG, revision)
        config = storage.read_config(path)
        if isinstance(of_compressor := config.get("policy"), dict):
            config = {"model_type": MODEL_TYPE, **of_compressor}
        if (kind := config.get("model_type")) != MODEL_TYPE:
            raise ScoreError(f"{path}: model_type must be {MODEL_TYPE!r}, got {kind!r}")
        return SurprisePolicy.of_files(path, config, storage.find_file(source, storage.WEIGHTS, revision))

    @staticmethod
    def of_files(path: Path, config: Mapping[str, Any], weights: Path) -> SurprisePolicy:
        """A policy, in eval mode on the CPU, of what a config says and a file of weights.

        Args:
            path: the file that ``config`` is from, for errors.
            config: what the file holds, ``model_type`` among it.
            weights: path of a safetensors file.

        Raises:
            ScoreError: a bad value in the config, or other weights; names the file.
        """
        try:
            with torch.device("meta"):  # nothing is allocated for a width that a broken config makes up
                policy = SurprisePolicy(SurprisePolicyConfig.from_dict(config))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ScoreError(f"{path}: {error}") from None
        storage.load_weights(policy, weights)
        return policy.eval()

    def save_pretrained(self, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Writes config.json and model.safetensors, each whole or not at all.

        Args:
            folder: made if it is not there.
            state_dict: weights in place of the policy's own, of the same names.

        Raises:
            OSError: a file cannot be written; names it.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with output_file(target / storage.WEIGHTS) as file:
            storage.save_weights(self.state_dict() if state_dict is None else state_dict, file)
        with output_file(target / storage.CONFIG) as file:
            file.write_text(self.config.to_json_string(), encoding="utf-8")

    def _check_input(self, videos: PackedVideos, question: Tensor | None) -> None:
        width = self.config.question_width
        if self.config.state == "residual" and videos.tokens.shape[1:] != (self.config.token_width,):
            got, wanted = list(videos.tokens.shape), self.config.token_width
            raise ScoreError(f"tokens must be [L, {wanted}], the token_width of this policy, got {got}")
        if question is None and width:
            raise ScoreError(f"question must be [{videos.num_videos}, {width}] for this policy, got None")
        if question is not None and not width:
            raise ScoreError("question must be None: this policy does not see it (its question_width is 0)")
        if question is not None and question.shape != (videos.num_videos, width):
            raise ScoreError(f"question must be [{videos.num_videos}, {width}], got {list(question.shape)}")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Layers whose outputs begin with about the spread of their inputs, and logits all near the initial one."""
        if not isinstance(module, nn.Linear):
            return
        spread = _OUTPUT_SPREAD if module is self.output else 1.0
        nn.init.normal_(module.weight, std=spread * module.in_features**-0.5)
        retention = self.config.initial_retention
        nn.init.constant_(module.bias, math.log(retention / (1 - retention)) if module is self.output else 0.0)


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
        raise ScoreError(f"logits must be [{len(videos.tokens)}], one for each token, got {list(logits.shape)}")
    # float64: the order of the sum does not show, wherever it is run
    total = torch.zeros(videos.num_videos, dtype=torch.float64, device=logits.device)
    return total.index_add(0, videos.video_of_token, logits.double().sigmoid()).float()
