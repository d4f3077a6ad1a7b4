"""Images and videos of InternVL and SmolVLM, which come alike: what their own processors write tells them apart."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.saved_square_models import SIDE, save_square_model
from torch import Tensor

from score_video.compressor import Compressor
from score_video.mllm import compress_inputs, encode_inputs
from score_video.mllm.load import load_model, load_processor

pytest.importorskip("torchvision")

FRAME = 16  # tokens
HALF = Compressor("uniform", 0.5)
IMAGE = {"internvl": "<IMG_CONTEXT>", "smolvlm": "<image>"}
Shown = tuple[str, int]  # as in ``pictures``, but an image's number is of tiles: 1, or 4 and a whole one


class Loaded:
    """A model with its processor."""

    def __init__(self, folder: Path, family: str) -> None:
        save_square_model(folder, family)
        self.family = family
        self.model = load_model(str(folder), torch.device("cpu"))
        self.processor = load_processor(str(folder))

    def inputs(self, *prompts: Sequence[str | Shown]) -> dict[str, Tensor]:
        """Of the processor, padded on the left."""
        generator = torch.Generator().manual_seed(len(str(prompts)))
        texts: list[str] = []
        images: list[list[Tensor]] = []
        videos: list[list[Tensor]] = []
        for prompt in prompts:
            texts.append("")
            images.append([])
            videos.append([])
            for part in prompt:
                if isinstance(part, str):
                    texts[-1] += part
                    continue
                kind, count = part
                texts[-1] += IMAGE[self.family] if kind == "image" else "<video>"
                side = 2 * SIDE if kind == "image" and count > 1 else SIDE
                frames = 1 if kind == "image" else count
                pixels = torch.randint(0, 255, (frames, 3, side, side), dtype=torch.uint8, generator=generator)
                if kind == "image":
                    images[-1].append(pixels[0])
                else:
                    videos[-1].append(pixels)
        given: dict[str, Any] = {}
        nested = self.family == "smolvlm"  # InternVL's takes all pictures of a batch in one list
        if any(images):
            given["images"] = images if nested else list(chain(*images))
        if any(videos):
            flat = list(chain(*videos))
            given |= {"videos": videos if nested else flat, "do_sample_frames": False}
            given["video_metadata"] = [_metadata(video) for video in flat]
        output = self.processor(text=texts, **given, return_tensors="pt", padding=len(texts) > 1, padding_side="left")
        return {name: torch.as_tensor(value) for name, value in output.items()}


def _metadata(video: Tensor) -> dict[str, Any]:
    count = len(video)
    return {
        **{"total_num_frames": count, "fps": 1, "frames_indices": list(range(count)), "duration": float(count)},
        **{"height": SIDE, "width": SIDE},
    }


@pytest.fixture(scope="module", params=IMAGE)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    if request.param == "smolvlm" and importlib.util.find_spec("num2words") is None:
        pytest.skip("SmolVLM's processor needs num2words")
    return Loaded(tmp_path_factory.mktemp("models") / "model", request.param)


@pytest.fixture(scope="module")
def internvl(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(tmp_path_factory.mktemp("models") / "internvl", "internvl")


PLAIN, CUT = ("image", 1), ("image", 5)
PROMPTS: dict[str, Sequence[Sequence[str | Shown]]] = {
    "image": [["Look: ", PLAIN, " what is it?"]],
    "image at once": [[PLAIN, "what is it?"]],
    "two images": [[PLAIN, PLAIN, " differ?"]],
    "two images on lines": [[PLAIN, "\n", PLAIN, "\ndiffer?"]],
    "numbered images": [["Image-1: ", PLAIN, "\nImage-2: ", PLAIN, "\ndiffer?"]],
    "cut image": [["a ", CUT, " b"]],
    "plain and cut image": [["a ", CUT, PLAIN, " b"]],
    "video": [["a ", ("video", 4), " b"]],
    "video at once": [[("video", 4), " b"]],
    "video of a frame": [[("video", 1), " b"]],
    "video of many frames": [[("video", 12), " b"]],
    "two videos": [[("video", 4), ("video", 4), " b"]],
    "two videos on lines": [[("video", 4), "\n", ("video", 4), "\n b"]],
    "text between videos": [["a", ("video", 4), " and then ", ("video", 4), " b"]],
    "image, video": [["a ", PLAIN, "\n", ("video", 4), " b"]],
    "video, image": [["a ", ("video", 4), PLAIN, " b"]],
    "video, line, image": [["a ", ("video", 4), "\n", PLAIN, " b"]],
    "cut image, video": [["a ", CUT, ("video", 4), " b"]],
    "video, cut image, video": [["a ", ("video", 4), CUT, ("video", 4), " b"]],
    "batch of videos": [[("video", 4), " b"], ["a longer text ", ("video", 4), " b"]],
    "batch of images": [[PLAIN, PLAIN, " b"], ["text"], ["a longer text ", PLAIN, " b"]],
    "batch of both": [["text"], [("video", 4), PLAIN, " b"], [PLAIN, PLAIN, " b"], [" longer ", ("video", 4), "."]],
}


@pytest.mark.parametrize("name", PROMPTS)
@torch.no_grad()
def test_what_a_prompt_shows_is_read(loaded: Loaded, name: str) -> None:
    prompts = PROMPTS[name]
    shown = [[part for part in prompt if not isinstance(part, str)] for prompt in prompts]
    kinds = {kind for row in shown for kind, _ in row}
    if loaded.family == "smolvlm":
        if len(kinds) > 1:
            pytest.skip("SmolVLM's processor loses the images of a batch that has videos")
        if "image" in kinds:  # its processor cuts them all
            shown = [[("image", 5) for _ in row] for row in shown]
    inputs = loaded.inputs(*prompts)
    pictures = [
        [(kind, 1 if kind == "image" and loaded.family == "internvl" else count) for kind, count in row]
        for row in shown
    ]
    read, told = (compress_inputs(loaded.model, inputs, HALF, visual_layout=said) for said in (None, pictures))
    frames = [count for row in shown for kind, count in row if kind == "video"]
    if not frames:
        assert read.videos is None and told.videos is None
        assert dict(read) == inputs  # whole, and the processor's own
        return
    assert read.videos is not None and told.videos is not None
    assert read.videos.lengths.tolist() == told.videos.lengths.tolist() == [FRAME * count for count in frames]
    assert torch.equal(read["inputs_embeds"], told["inputs_embeds"])
    dropped = inputs["attention_mask"].sum() - read["attention_mask"].sum()
    assert dropped == sum(FRAME * count - int(FRAME * count * 0.5) for count in frames)


@torch.no_grad()
def test_images_that_smolvlm_does_not_cut(loaded: Loaded) -> None:
    """They have the marks that frames have."""
    if loaded.family != "smolvlm":
        pytest.skip("InternVL's are among the prompts above")
    inputs = loaded.processor(
        text=["<image><image> a", "<image> b"],
        images=[[torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)] * 2, [torch.ones(3, SIDE, SIDE, dtype=torch.uint8)]],
        do_image_splitting=False,
        return_tensors="pt",
        padding=True,
    )
    assert (inputs["input_ids"] == loaded.model.config.image_token_id).sum() == 3 * FRAME
    assert encode_inputs(loaded.model, inputs) is None


@torch.no_grad()
def test_answers_about_images_and_videos_are_the_stock_models(internvl: Loaded) -> None:
    inputs = internvl.inputs(["a ", CUT, ("video", 4), PLAIN, " b"], [("video", 4), "a red car"])
    whole = Compressor("uniform", 1.0)(internvl.model, **inputs)
    assert whole.videos is not None and whole.videos.lengths.tolist() == [64, 64]
    answers = {"max_new_tokens": 5, "do_sample": False}
    stock = internvl.model.generate(**inputs, **answers)[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(internvl.model.generate(**whole, **answers), stock)


@pytest.mark.parametrize("text", ["Frame2: {}\nFrame3: {}", "Frame1: {}\nFrame3: {}", "Frame1: {} x\nFrame2: {}"])
def test_headings_that_no_processor_writes_are_refused(internvl: Loaded, text: str) -> None:
    inputs = internvl.inputs([PLAIN, PLAIN])
    frame = f"<img>{'<IMG_CONTEXT>' * FRAME}</img>"
    ids = internvl.processor.tokenizer(text.format(frame, frame) + " b", return_tensors="pt")["input_ids"]
    message = r"visual_layout must be given: prompt 0 has a heading 'Frame\d:' that goes on no video.*Say what"
    with pytest.raises(ValueError, match=message):
        HALF(internvl.model, input_ids=ids, pixel_values=inputs["pixel_values"])


def test_frames_given_as_images_with_a_videos_headings_are_a_video(internvl: Loaded) -> None:
    inputs = internvl.inputs(["a Frame1: ", PLAIN, "\nFrame2: ", PLAIN, " b"])
    encoded = encode_inputs(internvl.model, inputs)
    assert encoded is not None and encoded.visuals.videos.lengths.tolist() == [2 * FRAME]


def test_without_a_tokenizer(internvl: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    video, images = internvl.inputs([("video", 2), " b"]), internvl.inputs([PLAIN, PLAIN, " b"])
    cut = internvl.inputs([CUT, " b"])
    for where in ("", str(tmp_path / "moved away")):
        monkeypatch.setattr(internvl.model, "name_or_path", where)
        for inputs in (video, images):
            with pytest.raises(
                ValueError, match=r"visual_layout must be given: .* no tokenizer beside it \(name_or_path "
            ):
                HALF(internvl.model, **inputs)
        assert HALF(internvl.model, **cut).videos is None
        assert HALF(internvl.model, **images, visual_layout=[[("image", 1)] * 2]).videos is None
