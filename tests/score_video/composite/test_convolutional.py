"""Convolutional towers out of packages: their weights under the names of transformers, the numbers the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_video.composite import convolutional
from score_video.composite.convolutional import renamed, write_tower
from score_video.composite.media import Medium
from score_video.video.tower import load_tower

BLOCKS = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3)]
BLOCKS += [(5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)]
"""Of EfficientNet-Lite0 (its authors' table): kernel, stride, expansion, channels, repeats."""


def _norm(weights: dict[str, Tensor], name: str, width: int) -> None:
    weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.rand(width) + 0.5, torch.randn(width) * 0.1
    weights[f"{name}.running_mean"], weights[f"{name}.running_var"] = torch.randn(width) * 0.1, torch.rand(width) + 0.5
    weights[f"{name}.num_batches_tracked"] = torch.tensor(7)


def _convolution(weights: dict[str, Tensor], name: str, out: int, into: int, kernel: int) -> None:
    weights[f"{name}.weight"] = torch.randn(out, into, kernel, kernel) * (2 / (into * kernel**2)) ** 0.5


def efficientnet() -> dict[str, Tensor]:
    """Random weights, named as the package has them."""
    weights: dict[str, Tensor] = {}
    _convolution(weights, "_conv_stem", 32, 3, 3)
    _norm(weights, "_bn0", 32)
    width, number = 32, 0
    for kernel, _, expansion, channels, repeats in BLOCKS:
        for _ in range(repeats):
            name, inner = f"_blocks.{number}.", width * expansion
            if expansion > 1:
                _convolution(weights, name + "_expand_conv", inner, width, 1)
                _norm(weights, name + "_bn0", inner)
            _convolution(weights, name + "_depthwise_conv", inner, 1, kernel)
            _norm(weights, name + "_bn1", inner)
            _convolution(weights, name + "_project_conv", channels, inner, 1)
            _norm(weights, name + "_bn2", channels)
            width, number = channels, number + 1
    _convolution(weights, "_conv_head", 1280, 320, 1)
    _norm(weights, "_bn1", 1280)
    return {**weights, "_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def run_efficientnet(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Written out, with the padding of TensorFlow."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"], False, 0, 1e-3)

    def convolve(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
        padded = F.pad(x, (total // 2, total - total // 2) * 2)
        return F.conv2d(padded, weight, stride=stride, groups=groups)

    x, number = norm(convolve(x, "_conv_stem", 2), "_bn0").clamp(0, 6), 0
    for _, stride, expansion, _, repeats in BLOCKS:
        for repeat in range(repeats):
            name, y = f"_blocks.{number}.", x
            if expansion > 1:
                y = norm(convolve(y, name + "_expand_conv"), name + "_bn0").clamp(0, 6)
            y = convolve(y, name + "_depthwise_conv", stride if repeat == 0 else 1, y.shape[1])
            y = norm(convolve(norm(y, name + "_bn1").clamp(0, 6), name + "_project_conv"), name + "_bn2")
            x, number = (y if repeat == 0 else x + y), number + 1
    return norm(convolve(x, "_conv_head"), "_bn1").clamp(0, 6)


def bottleneck(weights: dict[str, Tensor], name: str, into: int, inner: int, shortcut: bool) -> None:
    for number, (out, width, kernel) in enumerate([(inner, into, 1), (inner, inner, 3), (4 * inner, inner, 1)], 1):
        _convolution(weights, f"{name}.conv{number}", out, width, kernel)
        _norm(weights, f"{name}.bn{number}", out)
    if shortcut:
        _convolution(weights, f"{name}.downsample.0", 4 * inner, into, 1)
        _norm(weights, f"{name}.downsample.1", 4 * inner)


def resnet() -> dict[str, Tensor]:
    """Random weights, named as the package has them."""
    weights: dict[str, Tensor] = {}
    _convolution(weights, "conv1", 64, 3, 7)
    _norm(weights, "bn1", 64)
    into = 64
    for layer, (inner, depth) in enumerate([(64, 3), (128, 4), (256, 6), (512, 1)], 1):
        for block in range(depth):
            bottleneck(weights, f"layer{layer}.{block}", into, inner, block == 0)
            into = 4 * inner
    return {f"module.pre.{name}": weight for name, weight in weights.items()}


def run_resnet(given: dict[str, Tensor], x: Tensor) -> Tensor:
    """Three stages, written out; the stride is in the convolution of 3 x 3."""
    weights = {name.removeprefix("module.pre."): weight for name, weight in given.items()}

    def step(x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        weight = weights[f"{convolution}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        return F.batch_norm(x, mean, var, weights[f"{norm}.weight"], weights[f"{norm}.bias"], False, 0, 1e-5)

    x = F.max_pool2d(step(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for layer, depth in ((1, 3), (2, 4), (3, 6)):
        for block in range(depth):
            name, stride = f"layer{layer}.{block}", 2 if block == 0 and layer > 1 else 1
            y = step(x, f"{name}.conv1", f"{name}.bn1").relu()
            y = step(step(y, f"{name}.conv2", f"{name}.bn2", stride).relu(), f"{name}.conv3", f"{name}.bn3")
            x = (y + (step(x, f"{name}.downsample.0", f"{name}.downsample.1", stride) if block == 0 else x)).relu()
    return x


@pytest.mark.parametrize(
    ("name", "weights", "run", "side"),
    [("efficientnet-lite0", efficientnet, run_efficientnet, 32), ("resnet50", resnet, run_resnet, 16)],
)
def test_same_numbers_as_written_out(
    name: str, weights: object, run: object, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    made = weights()  # type: ignore[operator]
    torch.save(made, tmp_path / "weights.pth")

    def found(media: Path, medium: Medium) -> Path:
        return media / "weights.pth"

    monkeypatch.setattr(convolutional, "find", found)
    write_tower(name, tmp_path, tmp_path / "tower")
    tower = load_tower(str(tmp_path / "tower"), torch.device("cpu"))
    assert isinstance(tower.model, nn.Module)
    assert tower.patch == side
    frames = np.random.default_rng(0).integers(0, 256, (2, 50, 60, 3)).astype(np.uint8)
    videos = tower.encode(frames)
    assert videos.grid == (2, 224 // side, 224 // side)
    wanted = run(made, tower.pixels(frames)).flatten(2).transpose(1, 2).flatten(0, 1)  # type: ignore[operator]
    torch.testing.assert_close(videos.tokens, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_names() -> None:
    weights = {"layer2.0.conv3.weight": torch.ones(1), "fc.bias": torch.ones(1)}
    table = ((r"layer(\d)\.(\d+)\.conv(\d)\.", "stages.{less[0]}.{1}.layer.{less[2]}."),)
    assert list(renamed(weights, table)) == ["stages.1.0.layer.2.weight"]
