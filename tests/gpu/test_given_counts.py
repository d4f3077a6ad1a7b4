"""Compressor.select with counts that are given: does not wait for the GPU, and keeps what the CPU keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from score_video.compressor import Compressor
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy, SurprisePolicyConfig

KEEP = [37, 11]


def frames(device: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(t, 6, 7, 64, generator=generator).to(device) for t in (8, 3)]


@pytest.mark.parametrize("name", ["policy", "surprise", "surprise-l2", "norm"])
def test_does_not_wait(name: str) -> None:
    torch.manual_seed(0)
    method: Any = SurprisePolicy(SurprisePolicyConfig(token_width=64)) if name == "policy" else name
    on_cpu = Compressor(method).select(PackedVideos.from_frames(frames("cpu")), keep=KEEP).index
    if name == "policy":
        method = method.to("cuda")
    videos = frames("cuda")
    Compressor(method).select(PackedVideos.from_frames(videos), keep=KEEP)  # loads the kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_gpu = Compressor(method).select(PackedVideos.from_frames(videos), keep=KEEP).index
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(on_gpu) == sum(KEEP)
    if name != "policy":  # its logits go through a matrix product, which rounds differently
        assert torch.equal(on_gpu.cpu(), on_cpu)
