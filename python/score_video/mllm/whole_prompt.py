"""What ``generate`` shows to its callers while it runs on shortened prompts: the whole prompts, as they wrote them.

Stopping criteria, logits processors, ``prefix_allowed_tokens_fn`` and streamers get token ids that begin with the
prompt, and may count or read them; lengths (``max_length``, ``min_length``) include the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from score_video.errors import ScoreError


@dataclass(frozen=True)
class WholePrompt:
    """Prompts as a caller of ``generate`` wrote them, and what the model gets in their place.

    Attributes:
        ids: int64 [B, S].
        shorter: int64 [B, W].
    """

    ids: Tensor
    shorter: Tensor

    def restore(self, sequences: Tensor) -> Tensor:
        """[B * n, W + N] -> [B * n, S + N]: each of the n answers to a prompt behind the whole of it."""
        whole = self.ids.to(sequences.device)
        whole = whole.repeat_interleave(len(sequences) // len(whole), 0)
        return torch.cat([whole, sequences[:, self.shorter.shape[1] :]], 1)

    def restore_row(self, row: int, ids: Tensor) -> Tensor:
        """[W + N] -> [S + N]: one answer to prompt ``row``."""
        return torch.cat([self.ids[row].to(ids.device), ids[self.shorter.shape[1] :]])

    def options(self, given: Mapping[str, Any], defaults: tuple[Any, ...]) -> dict[str, Any]:
        """Options of ``generate`` that mean on the shorter prompts what ``given`` means on the whole ones.

        Args:
            given: the arguments as the caller wrote them.
            defaults: generation configs that hold what is not given, the first that says something.

        Raises:
            ScoreError: ``max_length`` leaves no room for a token behind the whole prompt.
        """

        def option(name: str) -> Any:
            values = (given.get(name), *(getattr(config, name, None) for config in defaults))
            return next((value for value in values if value is not None), None)

        options, (whole, shorter) = dict(given), (self.ids.shape[1], self.shorter.shape[1])
        if (longest := option("max_length")) is not None and option("max_new_tokens") is None:
            if longest <= whole:
                raise ScoreError(
                    f"max_length must be above the {whole} tokens of the prompt, which it counts, got {longest}; or "
                    "give max_new_tokens"
                )
            options["max_length"] = longest - whole + shorter
        if (least := option("min_length")) and option("min_new_tokens") is None:
            options["min_length"] = max(0, least - whole + shorter)
        if given.get("stopping_criteria") is not None:
            options["stopping_criteria"] = [_Criterion(self, c) for c in given["stopping_criteria"]]
        if given.get("logits_processor") is not None:
            options["logits_processor"] = [_Processor(self, p) for p in given["logits_processor"]]
        if (allowed := given.get("prefix_allowed_tokens_fn")) is not None:
            options["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(row, self.restore_row(row, ids))
        if given.get("streamer") is not None:
            options["streamer"] = _Streamer(self, given["streamer"])
        return options


class _Criterion:
    def __init__(self, prompt: WholePrompt, criterion: Callable[..., Any]) -> None:
        self._prompt, self._criterion = prompt, criterion

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Any:
        return self._criterion(self._prompt.restore(input_ids), scores, **kwargs)


class _Processor:
    def __init__(self, prompt: WholePrompt, processor: Callable[..., Any]) -> None:
        self._prompt, self._processor = prompt, processor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Any:
        return self._processor(self._prompt.restore(input_ids), scores)


class _Streamer:
    """``generate`` puts the prompts first, then the answer's tokens as they come."""

    def __init__(self, prompt: WholePrompt, streamer: Any) -> None:
        self._prompt, self._streamer = prompt, streamer
        self._began = False

    def put(self, value: Tensor) -> None:
        """value: int64, the prompts [B, W], or the next tokens [B]."""
        if not self._began:
            value, self._began = self._prompt.restore(value), True
        self._streamer.put(value)

    def end(self) -> None:
        """Nothing comes after."""
        self._streamer.end()
