"""Tiny models with random weights, one of each supported family, and inputs for them as their processors make them.

To add a family: a function that returns a :class:`Family`, and its name in :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# A prompt is a list of parts: a text of so many tokens; an image; a video of so many frames
Part = int | str | tuple[str, int]
Prompts = Sequence[Sequence[Part]]
TEXT_IDS = range(20, 90)
IMAGE, VIDEO, START, END = 3, 4, 5, 6  # token ids
CUT = 7, 8, 9  # in front of the tiles of a SmolVLM image


@dataclass
class Batch:
    """A batch of prompts that is being written.

    Attributes:
        ids: of each prompt, without padding.
        places: for each video, (prompt, place in it) of each of its tokens that can be dropped.
        pixels: more inputs.
        pictures: what each prompt shows, for families that have to be told.
    """

    generator: torch.Generator
    ids: list[list[int]] = field(default_factory=list)
    places: list[list[tuple[int, int]]] = field(default_factory=list)
    pixels: dict[str, Any] = field(default_factory=dict)
    pictures: list[list[tuple[str, int]]] = field(default_factory=list)

    def text(self, count: int) -> None:
        self.ids[-1] += torch.randint(TEXT_IDS.start, TEXT_IDS.stop, (count,), generator=self.generator).tolist()

    def droppable(self, token: int, count: int) -> None:
        """Placeholders of the latest video."""
        row = self.ids[-1]
        self.places[-1] += [(len(self.ids) - 1, len(row) + place) for place in range(count)]
        row += [token] * count

    def shown(self, prompts: Prompts) -> Iterator[int]:
        """Begins a row for each prompt and writes its text; gives 0 for an image, and the number of frames of a video,
        for their placeholders to be written."""
        for prompt in prompts:
            self.ids.append([])
            for part in prompt:
                if isinstance(part, int):
                    self.text(part)
                elif part == "image":
                    yield 0
                else:
                    self.places.append([])
                    yield int(part[1])

    def frames(self, count: int, token: int, size: int) -> None:
        """Frames of the latest video, each of so many placeholders between marks, behind a heading."""
        for _ in range(count):
            self.text(2)
            self.ids[-1].append(START)
            self.droppable(token, size)
            self.ids[-1].append(END)

    def inputs(self, side: str = "left") -> dict[str, Any]:
        """Padded on that side."""
        width = max(len(row) for row in self.ids)

        def padded(rows: list[list[int]]) -> Tensor:
            fill = [[0] * (width - len(row)) for row in rows]
            return torch.tensor([f + row if side == "left" else row + f for f, row in zip(fill, rows, strict=True)])

        inputs = {"input_ids": padded(self.ids), "attention_mask": padded([[1] * len(row) for row in self.ids])}
        for name, value in self.pixels.items():
            inputs[name] = padded(value) if isinstance(value, list) else value
        return inputs


@dataclass(frozen=True)
class Family:
    """A tiny model and how to write prompts for it.

    Attributes:
        model: in eval mode, float32, on the CPU.
        write: adds a batch's prompts and their pixels.
        told: whether the model has to be told what the pictures of a prompt are.
        mixes: whether the stock model takes images and videos in one batch (images are left out if not), and gives
            several answers about a video.
    """

    model: Any
    write: Callable[[Batch, Prompts], None]
    told: bool = False
    mixes: bool = True

    def batch(self, prompts: Prompts) -> Batch:
        if not self.mixes and any(isinstance(part, tuple) for prompt in prompts for part in prompt):
            prompts = [[part for part in prompt if part != "image"] for prompt in prompts]
        batch = Batch(torch.Generator().manual_seed(len(str(prompts))))
        self.write(batch, prompts)
        return batch


_TEXT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO}
_QWEN_IDS = {**_IDS, "vision_start_token_id": START, "vision_end_token_id": END}
_SQUARE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def kinds(ids: list[list[int]]) -> list[list[int]]:
    """What processors say of each token: 0 for text, 1 for images, 2 for videos."""
    return [[{IMAGE: 1, VIDEO: 2}.get(token, 0) for token in row] for row in ids]


def _mrope() -> dict[str, Any]:
    """New each time: configurations write into it."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}}


def _qwen(batch: Batch, prompts: Prompts, timestamps: bool = False) -> None:
    """timestamps: as Qwen3-VL, whose frames stand between vision_start and vision_end, each after a time."""
    image, frame = (4, 8), (4, 6)  # rows and columns of patches, before they are merged two by two
    grids: dict[str, list[tuple[int, int, int]]] = {"image": [], "video": []}
    for frames in batch.shown(prompts):
        row = batch.ids[-1]
        if not frames:
            row += [START, *[IMAGE] * (image[0] * image[1] // 4), END]
            grids["image"].append((1, *image))
            continue
        tokens = frame[0] * frame[1] // 4
        for _ in range(frames if timestamps else 1):
            if timestamps:
                batch.text(3)
            row.append(START)
            batch.droppable(VIDEO, tokens if timestamps else tokens * frames)
            row.append(END)
        grids["video"].append((frames, *frame))
    batch.pixels["mm_token_type_ids"] = kinds(batch.ids)
    for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if grids[kind]:
            patches = sum(t * h * w for t, h, w in grids[kind])
            batch.pixels[pixels] = torch.randn(patches, 3 * 2 * 16, generator=batch.generator)
            batch.pixels[f"{kind}_grid_thw"] = torch.tensor(grids[kind])


def qwen2_vl() -> Family:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4}
    config = Qwen2VLConfig(text_config={**_TEXT, **_mrope()}, vision_config=vision, **_QWEN_IDS)
    return Family(seeded(Qwen2VLForConditionalGeneration, config), _qwen)


def qwen2_5_vl() -> Family:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 32}
    vision |= {"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(text_config={**_TEXT, **_mrope()}, vision_config=vision, **_QWEN_IDS)
    return Family(seeded(Qwen2_5_VLForConditionalGeneration, config), _qwen)


_QWEN3_VISION = {
    "depth": 3,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 48,
    "out_hidden_size": 32,
    "patch_size": 4,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}


def _qwen3_prompts(batch: Batch, prompts: Prompts) -> None:
    _qwen(batch, prompts, timestamps=True)


def qwen3_vl() -> Family:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(text_config={**_TEXT, **_mrope(), "head_dim": 8}, vision_config=_QWEN3_VISION, **_QWEN_IDS)
    return Family(seeded(Qwen3VLForConditionalGeneration, config), _qwen3_prompts)


def qwen3_vl_moe() -> Family:
    from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    config = Qwen3VLMoeConfig(
        text_config={**_TEXT, **_mrope(), "head_dim": 8, **experts}, vision_config=_QWEN3_VISION, **_QWEN_IDS
    )
    return Family(seeded(Qwen3VLMoeForConditionalGeneration, config), _qwen3_prompts)


_GLM_VISION = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 32}
_GLM_VISION |= {"patch_size": 4, "image_size": 32}


def _glm(kind: Any, config: Any, text: dict[str, Any]) -> Family:
    def write(batch: Batch, prompts: Prompts) -> None:
        _qwen3_prompts(batch, prompts)
        batch.ids = [[IMAGE if token == VIDEO else token for token in row] for row in batch.ids]

    config = config(text_config={**_TEXT, **_mrope(), **text}, vision_config=_GLM_VISION, **_IDS)
    return Family(seeded(kind, config), write, mixes=False)


def glm4v() -> Family:
    from transformers import Glm4vConfig, Glm4vForConditionalGeneration

    return _glm(Glm4vForConditionalGeneration, Glm4vConfig, {})


def glm46v() -> Family:
    from transformers import Glm46VConfig, Glm46VForConditionalGeneration

    return _glm(Glm46VForConditionalGeneration, Glm46VConfig, {})


def glm4v_moe() -> Family:
    from transformers import Glm4vMoeConfig, Glm4vMoeForConditionalGeneration

    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
    return _glm(Glm4vMoeForConditionalGeneration, Glm4vMoeConfig, {**experts, "n_shared_experts": 1, "head_dim": 16})


def _llava(batch: Batch, prompts: Prompts, image_tokens: int, frame_tokens: int, newline: bool, size: int) -> None:
    images = 0
    frames: set[int] = set()
    for shown in batch.shown(prompts):
        if not shown:
            batch.ids[-1] += [IMAGE] * image_tokens
            images += 1
            continue
        batch.droppable(VIDEO, shown * frame_tokens)
        batch.ids[-1] += [VIDEO] * newline
        frames.add(shown)
    if images:  # each as it is and in one tile
        batch.pixels["pixel_values"] = torch.randn(images, 2, 3, size, size, generator=batch.generator)
        batch.pixels["image_sizes"] = torch.tensor([[size, size]] * images)
    if frames:
        (count,) = frames  # their processors stack videos, so that all have the same
        videos = len(batch.places), count, 3, size, size
        batch.pixels["pixel_values_videos"] = torch.randn(videos, generator=batch.generator)


def llava_onevision() -> Family:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_TEXT},
        # five patches in a row: three after pooling
        vision_config={"model_type": "siglip_vision_model", **_SQUARE, "image_size": 20, "patch_size": 4},
        image_grid_pinpoints=[[20, 20], [20, 40]],
        **_IDS,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )

    def write(batch: Batch, prompts: Prompts) -> None:
        # a row of patches of the tile ends with a newline too
        _llava(batch, prompts, 25 + 5 * (5 + 1), 9, True, 20)
        if "pixel_values" in batch.pixels:
            batch.pixels["batch_num_images"] = torch.ones(len(batch.pixels["pixel_values"]), dtype=torch.long)

    return Family(seeded(LlavaOnevisionForConditionalGeneration, config), write)


def llava_next_video() -> Family:
    from transformers import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

    config = LlavaNextVideoConfig(
        text_config={"model_type": "llama", **_TEXT},
        vision_config={"model_type": "clip_vision_model", **_SQUARE, "image_size": 24, "patch_size": 4},
        image_grid_pinpoints=[[24, 24], [24, 48]],
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        vision_feature_select_strategy="default",
    )

    def write(batch: Batch, prompts: Prompts) -> None:
        _llava(batch, prompts, 36 + 6 * (6 + 1), 9, False, 24)

    return Family(seeded(LlavaNextVideoForConditionalGeneration, config), write)


def _framed(batch: Batch, prompts: Prompts, image: Sequence[tuple[int, int]]) -> list[int]:
    """image: (token in front, tiles) of each of its runs. Returns how many tiles each prompt has."""
    tiles = []
    for prompt in prompts:
        batch.ids.append([])
        batch.pictures.append([])
        tiles.append(0)
        for part in prompt:
            if isinstance(part, int):
                batch.text(part)
            elif part == "image":
                for token, count in image:
                    batch.ids[-1] += [token, *[IMAGE] * 9 * count, END]
                    tiles[-1] += count
                batch.pictures[-1].append(("image", len(image)))
            else:
                batch.places.append([])
                batch.frames(int(part[1]), IMAGE, 9)
                tiles[-1] += int(part[1])
                batch.pictures[-1].append(("video", int(part[1])))
    return tiles


def internvl() -> Family:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    config = InternVLConfig(
        text_config={"model_type": "qwen2", **_TEXT},
        vision_config={"model_type": "internvl_vision", **_SQUARE, "image_size": [24, 24], "patch_size": [4, 4]},
        image_token_id=IMAGE,
        image_seq_length=9,
    )

    def write(batch: Batch, prompts: Prompts) -> None:
        if tiles := sum(_framed(batch, prompts, [(START, 3)])):
            batch.pixels["pixel_values"] = torch.randn(tiles, 3, 24, 24, generator=batch.generator)

    return Family(seeded(InternVLForConditionalGeneration, config), write, told=True)


def smolvlm() -> Family:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    config = SmolVLMConfig(
        text_config={"model_type": "llama", **_TEXT},
        vision_config={**_SQUARE, "image_size": 24, "patch_size": 4},
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=0,
    )

    def write(batch: Batch, prompts: Prompts) -> None:
        tiles = _framed(batch, prompts, [(token, 1) for token in CUT])
        if any(tiles):
            pixels = torch.randn(len(tiles), max(tiles), 3, 24, 24, generator=batch.generator)
            for row, count in zip(pixels, tiles, strict=True):
                row[count:] = 0  # so it pads
            batch.pixels["pixel_values"] = pixels
            batch.pixels["pixel_attention_mask"] = torch.ones(len(tiles), max(tiles), 24, 24, dtype=torch.long)

    return Family(seeded(SmolVLMForConditionalGeneration, config), write, told=True)


def seeded(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    model = kind(config).eval()
    for parameter in model.parameters():  # the usual initialisation is too faint for differences to be seen
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    model.generation_config.eos_token_id = None  # every answer has as many tokens as are asked for
    return model


FAMILIES: dict[str, Callable[[], Family]] = {
    function.__name__: function
    for function in (
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        qwen3_vl_moe,
        glm4v,
        glm46v,
        glm4v_moe,
        llava_onevision,
        llava_next_video,
        internvl,
        smolvlm,
    )
}
