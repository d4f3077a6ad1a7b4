"""A frozen model whose layers are shared out over the processes of a training, which pass through it independently.

Each process holds a part of every layer (FSDP2, ``torch.distributed.fsdp.fully_shard``). When a layer is called its
weights are gathered from all processes, so all have to take part. But each process makes as many passes as its own
videos, samples and cache need. So before a layer is called all say which layer they need next, and the lowest number is
gathered: who needs it calls it, the others give their part and forget the rest again. Those that need the same layer
gather it together. A process that has nothing left to do goes on giving until all have (:meth:`Sharding.wait`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from score_video.errors import ScoreError

Made = TypeVar("Made")


class Sharding:
    """Shares one model's layers out; the rest of it (embeddings, norms, the output) stays whole in every process.

    All processes of the default group have to make one at the same time.

    Args:
        device: the process's own.

    Raises:
        ScoreError: there are no processes that were started together.
    """

    def __init__(self, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        if not dist.is_initialized():
            raise ScoreError("a model is shared out over processes that are started together (torchrun), got one alone")
        self._device = device
        self._mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self._group = dist.new_group(backend="gloo")  # what is said is said on the CPU: no wait for the device
        self._layers: list[Any] = []

    def in_turns(self, make: Callable[[], Made]) -> Made:
        """Calls it in one process of a machine after the other: its memory holds one whole model at a time."""
        local = int(os.environ.get("LOCAL_RANK", dist.get_rank()))
        for turn in range(dist.get_world_size()):
            if turn == local:
                made = make()
            dist.barrier(self._group)
        return made

    def share_out(self, model: nn.Module) -> None:
        """Keeps this process's part of every layer, on its device, and the rest of the model.

        Args:
            model: frozen, the same in all processes; still on any device. It is changed in place.

        Raises:
            ScoreError: it has no lists of layers.
        """
        from torch.distributed.fsdp import fully_shard

        self._layers = list(layers_of(model))
        if not self._layers:
            raise ScoreError(f"{type(model).__name__} has no lists of layers that could be shared out")
        for number, layer in enumerate(self._layers):
            fully_shard(layer, mesh=self._mesh, reshard_after_forward=True)
            # before fully_shard's own, which gathers
            layer.register_forward_pre_hook(partial(self._take_turn, number), prepend=True)
        model.to(self._device)

    def wait(self) -> None:
        """Gives the other processes what they need, until none needs a layer any more. All have to call it."""
        while self._gather_next(len(self._layers)) < len(self._layers):
            pass

    def _take_turn(self, number: int, *_: Any) -> None:
        """Returns when layer ``number`` is gathered next."""
        while self._gather_next(number) < number:
            pass

    def _gather_next(self, wanted: int) -> int:
        """The lowest number that any process wants. If it is not this one's, it gives its part of that layer."""
        lowest = torch.tensor(wanted, device="cpu")
        dist.all_reduce(lowest, dist.ReduceOp.MIN, self._group)
        number = int(lowest)
        if number < wanted:
            self._layers[number].unshard()
            self._layers[number].reshard()
        return number


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """What stands in the model's lists of modules and has weights, in order; not what is within such a layer."""
    for module in model.children():
        if isinstance(module, nn.ModuleList):
            yield from (layer for layer in module if next(layer.parameters(), None) is not None)
        else:
            yield from layers_of(module)


def asked_by_accelerate() -> bool:
    """Whether ``accelerate launch`` was configured with FSDP, which is then the frozen model's.

    It is taken out of the process's environment: Trainer would shard the policy.

    Raises:
        ScoreError: a configuration that cannot be followed.
    """
    from accelerate.utils import parse_flag_from_env  # type: ignore[import-untyped]

    for name, other in (("DEEPSPEED", "DeepSpeed"), ("MEGATRON_LM", "Megatron-LM")):
        if parse_flag_from_env(f"ACCELERATE_USE_{name}"):
            raise ScoreError(
                f"accelerate is configured with {other}, which cannot share out the frozen model: take FSDP (version 2)"
            )
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ScoreError(f"accelerate's fsdp_version must be 2, got {version}")
    if parse_flag_from_env("FSDP_OFFLOAD_PARAMS"):
        raise ScoreError("accelerate's fsdp_offload_params must be false: the frozen model's parts stay on the devices")
    del os.environ["ACCELERATE_USE_FSDP"]
    return True
