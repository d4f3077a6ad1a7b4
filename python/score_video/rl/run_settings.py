"""Which settings a run must share with the one that it goes on from: all of them, but for those named here.

The list is of what may differ, so that a setting that transformers adds tomorrow is compared until somebody has thought
about it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any

_REASONS: dict[str, tuple[str, ...]] = {
    "where things are written and sent": (
        *("output_dir", "run_name", "project", "report_to"),
        *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy"),
        *("hub_always_push", "hub_revision"),
    ),
    "what is said, and how often": (
        *("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_on_each_node"),
        *("log_level", "log_level_replica", "disable_tqdm", "include_num_input_tokens_seen", "skip_memory_metrics"),
    ),
    "when a checkpoint is saved, and how many are kept": (
        *("save_strategy", "save_steps", "save_total_limit", "save_on_each_node", "enable_jit_checkpoint"),
    ),
    "how examples get to the trainer, in whose order nothing changes": (
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "dataloader_multiprocessing_context"),
    ),
    "what a batch is split among, and on which machine; its size is compared as videos_of_a_step": (
        *("per_device_train_batch_size", "per_device_eval_batch_size", "eval_accumulation_steps", "use_cpu"),
        *("local_rank", "ddp_backend", "ddp_timeout", "ddp_find_unused_parameters", "torch_empty_cache_steps"),
    ),
    "how long the run is: it may grow": ("max_steps", "num_train_epochs"),
    "what Trainer leaves to scripts": ("do_train", "do_eval", "do_predict", "resume_from_checkpoint"),
    "without it a run ends at the first broken example, and must be able to go on with it": ("skip_broken",),
}

FREE: Mapping[str, str] = {name: reason for reason, names in _REASONS.items() for name in names}
"""Settings that may be others when a run is resumed, each with the reason why no step's outcome changes with it."""


def decisive(args: Any) -> dict[str, Any]:
    """All settings of a dataclass of arguments that must not change, as JSON can hold them."""
    names = [entry.name for entry in dataclasses.fields(args) if entry.init and entry.name not in FREE]
    return {name: _plain(getattr(args, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    return str(value)
