"""Sizes that the tiny models of tiny_grids.py and tiny_frames.py share, and prompts with grids of patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tiny import END, IMAGE, START, VIDEO, Batch, Family, Prompts, seeded
from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

BEGIN, FINISH, AUDIO = 7, 8, 9  # of a whole video; of audio

TEXT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO}
MARKS = {"vision_start_token_id": START, "vision_end_token_id": END}
GLM_MARKS = {"image_start_token_id": START, "image_end_token_id": END}
VISION = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 32}
VISION |= {"patch_size": 4, "num_position_embeddings": 64}
WINDOWS = {**VISION, "window_size": 16, "fullatt_block_indexes": [1]}
DEEPSTACK = {**VISION, "depth": 3, "deepstack_visual_indexes": [0, 1]}
SQUARE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4}
TABLE = {**SQUARE, "pos_emb_height": 8, "pos_emb_width": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1}
ROUTED |= {"n_group": 1, "topk_group": 1, "mlp_layer_types": ["dense", "sparse"]}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
LATENT |= {"num_key_value_heads": 4}
LINEAR = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
INDEX = {"index_topk": 8, "index_n_heads": 2}


def rotary(*sections: int, **options: Any) -> dict[str, Any]:
    """New each time: configurations write into it."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, **options}
    return {"rope_parameters": {**rope, "mrope_section": list(sections)} if sections else rope}


def layers(*types: str, window: int | None = None) -> dict[str, Any]:
    return {
        "layer_types": list(types),
        "num_hidden_layers": len(types),
        **({"sliding_window": window} if window else {}),
    }


@dataclass(frozen=True)
class Grids:
    """How a family's processor writes pictures.

    Attributes:
        timestamps: each frame stands between marks of its own, behind a time.
        pixels: the shape of a patch.
        types: whether the processor gives ``mm_token_type_ids``.
        merged: how many rows of the grid in time are one frame of tokens.
        newline: a column more in each frame, and in images.
        video: the placeholder of videos.
        around: marks around a whole video.
        chunk: frames of a grid, each of which gives one frame of tokens; None: a video is one grid.
    """

    timestamps: bool = False
    pixels: tuple[int, ...] = (96,)
    types: bool = False
    merged: int = 1
    newline: int = 0
    video: int = VIDEO
    around: tuple[int, ...] = ()
    chunk: int | None = None
    image: tuple[int, int] = (4, 8)
    frame: tuple[int, int] = (4, 6)

    def tokens(self, grid: tuple[int, int]) -> int:
        return (grid[0] // 2) * (grid[1] // 2 + self.newline)

    def __call__(self, batch: Batch, prompts: Prompts) -> None:
        grids: dict[str, list[tuple[int, int, int]]] = {"image": [], "video": []}
        types: list[list[int]] = []
        batch.pictures = []
        for prompt in prompts:
            batch.ids.append([])
            row = batch.ids[-1]
            types.append([])
            batch.pictures.append([])
            for part in prompt:
                if isinstance(part, int):
                    batch.text(part)
                elif part == "image":
                    row += [START, *[IMAGE] * self.tokens(self.image), END]
                    grids["image"].append((1, *self.image))
                    types[-1] += [0] * (len(row) - 1 - self.tokens(self.image) - len(types[-1]))
                    types[-1] += [1] * self.tokens(self.image)
                else:
                    self.write_video(batch, int(part[1]), types[-1])
                    batch.pictures[-1].append(("video", 1 if self.chunk is None else int(part[1])))
                    rows = int(part[1]) * self.merged
                    grids["video"] += (
                        [(rows, *self.frame)] if self.chunk is None else [(self.chunk, *self.frame)] * int(part[1])
                    )
            types[-1] += [0] * (len(row) - len(types[-1]))
        if self.types:
            batch.pixels["mm_token_type_ids"] = types
        for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            if grids[kind]:
                patches = sum(t * h * w for t, h, w in grids[kind])
                batch.pixels[pixels] = torch.randn(patches, *self.pixels, generator=batch.generator)
                batch.pixels[f"{kind}_grid_thw"] = torch.tensor(grids[kind])

    def write_video(self, batch: Batch, frames: int, types: list[int]) -> None:
        row = batch.ids[-1]
        batch.places.append([])
        row += self.around[:1]
        for _ in range(frames if self.timestamps else 1):
            if self.timestamps:
                batch.text(3)
            row.append(START)
            types += [0] * (len(row) - len(types))
            batch.droppable(self.video, self.tokens(self.frame) * (1 if self.timestamps else frames))
            types += [2] * (len(row) - len(types))
            row.append(END)
        row += self.around[1:]


def family(
    model_type: str,
    write: Callable[[Batch, Prompts], None],
    text: Any,
    vision: Any,
    *,
    mixes: bool = True,
    told: bool = False,
    **others: Any,
) -> Callable[[], Family]:
    """A function that makes a model of that type; ``text`` and ``vision`` are added to what all have."""

    def make() -> Family:
        config = CONFIG_MAPPING[model_type](text_config={**TEXT, **text}, vision_config=vision, **{**IDS, **others})
        return Family(seeded(AutoModelForImageTextToText.from_config, config), write, told=told, mixes=mixes)

    make.__name__ = model_type
    return make
