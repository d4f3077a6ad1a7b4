"""The plugin that vLLM finds through the entry point ``vllm.general_plugins`` and calls in each of its processes.

Off unless :data:`score_video.serving.setting.VARIABLE` is set: then nothing of vLLM is touched, nor even imported.
"""

from __future__ import annotations

import functools
from typing import Any


def register() -> None:
    """Makes vLLM compress videos as the setting says. Called any number of times in a process.

    Models are replaced through vLLM's own registry, by subclasses that are imported when they are needed. Three things
    are patched, because there is no other way in: vLLM's own choices of tokens refuse models that are not in
    :data:`.architectures.ARCHITECTURES`, videos are looked at before they are decoded (:mod:`.vllm_media`), and the CPU
    runner strips position channels (:func:`_heal_cpu_runner`).

    Raises:
        RuntimeError: this vLLM lacks something that the plugin relies on; names it (:mod:`.vllm_check`).
        ScoreError: a setting is wrong, as :func:`score_video.serving.setting.engine_compressor` and
            :meth:`score_video.serving.limits.Limits.read` say.
    """
    from score_video.serving.setting import ENGINE_ITSELF, read_setting

    setting = read_setting()
    if not setting:
        return
    _check_vllm()
    import vllm

    if setting != ENGINE_ITSELF:
        from score_video.serving.architectures import ARCHITECTURES
        from score_video.serving.setting import engine_compressor

        engine_compressor(setting)  # now, so that a wrong one stops the server and not the first request
        for name in ARCHITECTURES.keys() & set(vllm.ModelRegistry.get_supported_archs()):
            vllm.ModelRegistry.register_model(name, f"score_video.serving.vllm_models:{name}")
        _refuse_other_models()
    from score_video.serving.limits import Limits
    from score_video.serving.vllm_media import check_videos

    check_videos(Limits.read())
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _heal_cpu_runner()


def _check_vllm() -> None:
    """Sees that the installed vLLM has what the plugin relies on, before any of it is imported or changed."""
    from score_video.serving.setting import VARIABLE
    from score_video.serving.vllm_check import RAN, installed, missing

    lacking = missing(installed())
    import vllm

    release = vllm.__version__
    if lacking:
        raise RuntimeError(
            f"{VARIABLE} is set, but score-video relies on what vLLM {release} has not, and will not touch it: "
            f"{'; '.join(lacking)}. Install a release that has it ({', '.join(RAN)}), or unset {VARIABLE}"
        )
    if release.split("+")[0] not in RAN:
        from vllm.logger import init_logger

        init_logger(f"vllm.plugins.{__name__}").warning(
            "vLLM %s has all that score-video relies on, but its tests have run on %s alone",
            release,
            ", ".join(RAN),
        )


def _refuse_other_models() -> None:
    """Our models never ask vLLM which tokens to keep: whichever does is one that we do not know."""
    from vllm.multimodal.video_prune import evs, vidcom2

    from score_video.serving.architectures import served
    from score_video.serving.setting import VARIABLE

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            f"{VARIABLE} is set, but score-video cannot compress videos for this model, only for "
            f"{', '.join(served())}: serve it without --video-pruning-rate, or unset {VARIABLE}"
        )

    evs.compute_retention_mask = refuse
    vidcom2.compute_retention_mask = refuse


def _heal_cpu_runner() -> None:
    """vLLM 0.32's CPU runner has a ``load_model`` of its own, which forgets to note that videos are pruned.

    The position channels that pruning models append to a video's tokens then stay on them, and the first video ends
    the engine, with vLLM's own methods as well. The runner for GPUs notes it; here the same is done after loading.
    """
    from vllm.logger import init_logger
    from vllm.model_executor.models.interfaces import supports_multimodal_pruning
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    load_model = CPUModelRunner.load_model
    if hasattr(load_model, "__wrapped_by_score_video__"):
        return

    @functools.wraps(load_model)
    def load_and_note_pruning(runner: Any, *args: Any, **kwargs: Any) -> None:
        load_model(runner, *args, **kwargs)
        config = runner.model_config.multimodal_config
        prunes = config is not None and config.is_multimodal_pruning_enabled()
        if prunes and supports_multimodal_pruning(runner.get_model()) and not runner.is_multimodal_pruning_enabled:
            runner.is_multimodal_pruning_enabled = True
            init_logger(f"vllm.plugins.{__name__}").info(
                "vLLM's CPU runner did not note that videos are pruned; score-video has set its "
                "is_multimodal_pruning_enabled, without which every video would end the engine"
            )

    load_and_note_pruning.__wrapped_by_score_video__ = True  # type: ignore[attr-defined]
    CPUModelRunner.load_model = load_and_note_pruning
