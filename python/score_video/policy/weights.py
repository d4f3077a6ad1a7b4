"""Policies from the folders they were saved in, and the one that comes with the package."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from score_video.policy.network import SurprisePolicy, SurprisePolicyConfig

PRETRAINED = Path(__file__).with_name("pretrained")
"""The folder of the policy that comes with the package."""


def pretrained_policy() -> SurprisePolicy:
    """The policy that comes with the package, on the CPU and frozen: for visual tokens of any tower and width.

    Its state is "relative". It learned by RL on miniature readers with several vision towers, and was tested on towers
    that it never saw (docs/results.md); no model of useful size was among them. ``python -m evaluation.pretrained``
    makes it. Best selected by the law "systematic".
    """
    return load_policy(PRETRAINED)


def load_policy(folder: Path) -> SurprisePolicy:
    """A policy that its ``save_pretrained`` wrote, on the CPU and frozen.

    Raises:
        FileNotFoundError: there is no such folder, or nothing of a policy in it.
        TypeError, ValueError: it holds something else, or is damaged.
    """
    if (kind := kind_of(folder)) != "score_policy":
        raise ValueError(f"{folder} must hold a policy (model_type 'score_policy'), got {kind!r}")
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(2, "holds no policy (no model.safetensors)", str(folder))
    policy = new_policy(SurprisePolicyConfig.from_pretrained(folder))
    load_policy_weights(policy, folder / "model.safetensors")
    policy.eval()  # type: ignore[no-untyped-call]
    frozen: SurprisePolicy = policy.requires_grad_(False)
    return frozen


def new_policy(config: SurprisePolicyConfig) -> SurprisePolicy:
    """A policy to read weights into: on the CPU, whatever torch's default device is."""
    with torch.device("cpu"):
        return SurprisePolicy(config)


def load_policy_weights(policy: SurprisePolicy, path: Path) -> None:
    """Reads a policy's weights from a safetensors file, whose dtype it takes.

    Raises ValueError, which names the file, where it is damaged or holds the weights of another policy.
    """
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    dtypes = {weight.dtype for weight in weights.values()}
    if len(dtypes) != 1:
        raise ValueError(f"{path} must hold weights of one dtype, got {len(dtypes)}")
    policy.to(dtype=dtypes.pop())  # type: ignore[call-arg]
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} holds the weights of another policy: {error}") from None


def kind_of(folder: Path) -> object:
    """The ``model_type`` in a folder's config.json: "score_policy", "score_compressor", or whatever is there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no object of JSON.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(2, "holds no policy (no config.json)", str(folder))
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is not the configuration of a policy") from None
