"""A processor for the tiny models of tiny.py, of any family: a token for each character, pixels drawn by the frames.

The real ones need torchvision, which has no place in every environment (test_real_processors.py is about them).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tiny import TEXT_IDS, Batch, Family
from torch import Tensor

PLACEHOLDER = "▶"
PLACEHOLDER_ID, END_OF_TURN = 10, 2


def char_ids(text: str) -> list[int]:
    return [PLACEHOLDER_ID if c == PLACEHOLDER else TEXT_IDS.start + ord(c) % len(TEXT_IDS) for c in text]


class TinyProcessor:
    """What the package asks of a processor of transformers.

    Attributes:
        places: in the latest prompt, where the video's droppable tokens stand.
    """

    def __init__(self, family: Family, template: str = "user: {video}{text} assistant: ") -> None:
        self._family = family
        self.chat_template: str | None = template
        self.tokenizer = _Tokenizer()
        self.places: list[int] = []
        self.calls = 0

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        assert options == {"tokenize": False, "add_generation_prompt": True}
        assert self.chat_template is not None
        (message,) = messages
        parts = {part["type"]: part.get("text", PLACEHOLDER) for part in message["content"]}
        return self.chat_template.format(**parts)

    def to_json_string(self) -> str:
        return json.dumps({"family": type(self._family.model).__name__})

    def __call__(self, text: Sequence[str], videos: Sequence[Sequence[Tensor]], **options: Any) -> dict[str, Tensor]:
        self.calls += 1
        (prompt,), ((frames,),), (metadata,) = text, videos, options["video_metadata"]
        assert options["return_tensors"] == "pt" and not options["do_sample_frames"]
        assert len(metadata["frames_indices"]) == len(frames) and frames.shape[1] == 3
        # in front of a prompt that has no place for it
        before, after = (char_ids(part) for part in prompt.rpartition(PLACEHOLDER)[::2])
        batch = Batch(torch.Generator().manual_seed(int(frames.long().sum())))
        self._family.write(batch, [[("video", len(frames))]])
        self.places = [len(before) + column for _, column in batch.places[0]]
        batch.ids[0] = [*before, *batch.ids[0], *after]
        for name, value in batch.pixels.items():
            if name.endswith("mm_token_type_ids"):
                batch.pixels[name] = [[0] * len(before) + value[0] + [0] * len(after)]
        return batch.inputs()


class _Tokenizer:
    bos_token = None
    eos_token_id = END_OF_TURN

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": char_ids(text)}

    def decode(self, ids: Tensor, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(map(str, ids.tolist()))

    def get_vocab(self) -> dict[str, int]:
        return {chr(c): char_ids(chr(c))[0] for c in range(128)}
