"""What a step would wait for on a GPU, counted where there is none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts operations for whose result the host waits on a GPU: numbers, places and sizes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        )
        if masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "_unique2", "equal"):
            self.seen[name] += 1
        return function(*args, **(kwargs or {}))
