"""The architectures that vLLM prunes: how their prompts hold a video, and which of them are refused, with the reason.

Names are those of a model's config.json. To add one: a line here and, where no kind will do, a class in
``vllm_models.py``. A test compares the list with what the installed vLLM says of its models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["run", "timed", "masked", "refused"]
"""How a prompt holds a video: as one run of placeholders; as frames with their times between them; as frames that vLLM
puts together itself, asking for a mask; or "refused": not with this plugin."""


@dataclass(frozen=True)
class Architecture:
    """An architecture of vLLM.

    Attributes:
        models: the name by which people know it.
        module: the module of vLLM that has its class.
        kind: how its prompts hold a video.
        ran: whether the tests in tests/score_video/serving run it on the real engine.
        reason: why it was not run, or is refused; None where it was.
        class_name: what its class is called in ``module``; None: as the architecture.
    """

    models: str
    module: str
    kind: Kind
    ran: bool = False
    reason: str | None = None
    class_name: str | None = None


_ROOM = "vllm.model_executor.models"
_EMBEDS = "it makes embeddings of a whole prompt and answers no questions"
_LAYOUT = "transformers 5.19 saves experts in another layout than published checkpoints have, which vLLM does not read"
_NO_MODEL = "no tiny model of it was made"
_HALF_RUN = "its class adds nothing to {} where tokens are chosen; no tiny model of it was made"
_NANO = "vLLM's class is that of Nemotron Nano VL v2, which was; no tiny model of it was made"


def _nano(models: str, *, ran: bool = False) -> Architecture:
    reason = None if ran else _NANO
    return Architecture(
        models, f"{_ROOM}.nano_nemotron_vl", "masked", ran=ran, reason=reason, class_name="NemotronH_Nano_VL_V2"
    )


def _embedder(models: str, module: str, class_name: str) -> Architecture:
    return Architecture(models, f"{_ROOM}.{module}", "refused", reason=_EMBEDS, class_name=class_name)


ARCHITECTURES: dict[str, Architecture] = {
    "Qwen2_5_VLForConditionalGeneration": Architecture("Qwen2.5-VL", f"{_ROOM}.qwen2_5_vl", "run", ran=True),
    "Exaone4_5_ForConditionalGeneration": Architecture(
        "EXAONE 4.5", f"{_ROOM}.exaone4_5", "run", reason=_HALF_RUN.format("Qwen2.5-VL's")
    ),
    "OpenCUAForConditionalGeneration": Architecture("OpenCUA", f"{_ROOM}.opencua", "run", reason=_NO_MODEL),
    "Qwen3VLForConditionalGeneration": Architecture("Qwen3-VL", f"{_ROOM}.qwen3_vl", "timed", ran=True),
    "Qwen3VLMoeForConditionalGeneration": Architecture(
        "Qwen3-VL, mixture of experts", f"{_ROOM}.qwen3_vl_moe", "timed", reason=_LAYOUT
    ),
    "Cosmos3ForConditionalGeneration": Architecture(
        "Cosmos 3", f"{_ROOM}.cosmos3", "timed", reason=_HALF_RUN.format("Qwen3-VL's")
    ),
    "Qwen3_5ForConditionalGeneration": Architecture("Qwen3.5", f"{_ROOM}.qwen3_5", "timed", ran=True),
    "Qwen3_5MoeForConditionalGeneration": Architecture(
        "Qwen3.5, mixture of experts", f"{_ROOM}.qwen3_5", "timed", ran=True
    ),
    "Qwen4ExpForConditionalGeneration": Architecture(
        "Qwen4-exp",
        "vllm.models.qwen4_exp",
        "timed",
        reason="its indexed attention needs FlashAttention, which no CPU has (`Qwen4Exp QSA requires FlashAttention`)",
    ),
    "InternS1ProForConditionalGeneration": Architecture(
        "Intern-S1-Pro", f"{_ROOM}.interns1_pro", "timed", reason=_NO_MODEL
    ),
    "InternS2PreviewForConditionalGeneration": Architecture(
        "Intern-S2-Preview", f"{_ROOM}.interns2_preview", "timed", reason=_NO_MODEL
    ),
    "InternS2MobiusForConditionalGeneration": Architecture(
        "Intern-S2-Mobius", f"{_ROOM}.interns2_mobius", "timed", reason=_NO_MODEL
    ),
    "NemotronH_Nano_VL_V2": _nano("Nemotron Nano VL v2", ran=True),
    "NemotronH_Nano_Omni_Reasoning_V3": _nano("Nemotron Nano Omni"),
    "NemotronH_Super_Omni_Reasoning_V3": _nano("Nemotron Super Omni"),
    "NemotronH_Omni_Reasoning_V3": _nano("Nemotron Omni"),
    "CohereCompassForConditionalGeneration": Architecture(
        "Cohere Compass", f"{_ROOM}.cohere_compass", "refused", reason="vLLM's takes images and no videos"
    ),
    "ColQwen3": _embedder("ColQwen3", "colqwen3", "ColQwen3Model"),
    "OpsColQwen3Model": _embedder("Ops-ColQwen3", "colqwen3", "ColQwen3Model"),
    "Qwen3VLNemotronEmbedModel": _embedder("Nemotron embedding of Qwen3-VL", "colqwen3", "ColQwen3Model"),
    "ColQwen3_5": _embedder("ColQwen3.5", "colqwen3_5", "ColQwen3_5Model"),
}


def served() -> list[str]:
    """The architectures whose videos are compressed."""
    return [name for name, known in ARCHITECTURES.items() if known.kind != "refused"]
