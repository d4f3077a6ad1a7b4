"""Runs engines one after the other in a process of its own: the plugin's setting is one process's.

    python engine_process.py jobs.json results.json

A job: {"name", "model", "rate", "method", "setting", "options", "requests": lists of names, each list at once,
"embedded": whether the features of videos are sent in their place, "kept files": as :func:`kept_prompt` has them,
"placeholder": what stands for a video in the prompt's text, if not what Qwen's models have}.
A result: {"answers": {name: {"prompt": token ids, "output": token ids}}, "kept": one list of rows for each video
encoded}; "state": what of score-video and vLLM is loaded and patched in the end.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from workload import VIDEO, contents, prompt


def run(job: dict[str, Any]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    if job["setting"] is None:
        os.environ.pop("SCORE_VIDEO_COMPRESSOR", None)
    else:
        os.environ["SCORE_VIDEO_COMPRESSOR"] = job["setting"]
    options = {"max_model_len": 4096, "limit_mm_per_prompt": {"image": 1, "video": 2}, **job["options"]}
    if job["rate"]:
        options |= {"video_pruning_rate": job["rate"], "video_pruning_method": job["method"]}
    if options.get("load_format") == "dummy":
        widen_dummy_weights()
    engine = LLM(job["model"], enforce_eager=True, distributed_executor_backend="uni", **options)
    ask = partial(embedded_prompt, job["model"]) if job.get("embedded") else prompt
    if "kept files" in job:
        ask = partial(kept_prompt, job["kept files"])
    if "placeholder" in job:
        ask = partial(other_prompt, job["placeholder"])
    kept = record_kept()
    sampling = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    answers = {}
    for names in job["requests"]:
        for name, output in zip(names, engine.generate([ask(name) for name in names], sampling), strict=True):
            ids = {"prompt": list(output.prompt_token_ids), "output": list(output.outputs[0].token_ids)}
            answers[name] = ids
    del engine
    gc.collect()
    cleanup_dist_env_and_memory()
    return {"answers": answers, "kept": kept}


def embedded_prompt(model: str, name: str) -> dict[str, Any]:
    """The request with what transformers' vision tower makes of its one video; nothing says how fast it goes."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    text, (video,), _ = contents()[name]
    processor = AutoProcessor.from_pretrained(model)
    inputs = processor.video_processor([video], do_sample_frames=False, return_tensors="pt")
    pixels, grid = inputs["pixel_values_videos"], inputs["video_grid_thw"]
    with torch.no_grad():
        network = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
        features = torch.cat(list(network.get_video_features(pixels, grid, return_dict=True).pooler_output))
    return {"prompt": text, "multi_modal_data": {"video": {"video_embeds": features, "video_grid_thw": grid}}}


def kept_prompt(files: dict[str, Any], name: str) -> dict[str, Any]:
    """A request with a file of ``score embed`` in the place of a video; files: name -> [prompt, file]."""
    from score_video.serving.kept import video_embeds

    text, file = files[name]
    return {"prompt": text, "multi_modal_data": {"video": video_embeds(file)}}


def other_prompt(placeholder: str, name: str) -> dict[str, Any]:
    """The request for a model whose prompts have another placeholder for a video."""
    asked = prompt(name)
    return {**asked, "prompt": asked["prompt"].replace(VIDEO, placeholder)}


def widen_dummy_weights() -> None:
    """vLLM's made-up weights are so small that nothing that is seen changes an answer."""
    from vllm.model_executor.model_loader import dummy_loader

    make = ORIGINAL.setdefault("dummy weights", dummy_loader.initialize_single_dummy_weight)
    dummy_loader.initialize_single_dummy_weight = partial(make, low=-0.2, high=0.2)


def record_kept() -> list[list[int]]:
    """A list that grows by what our models keep of each video; nothing where they are not in use."""
    kept: list[list[int]] = []
    if (models := sys.modules.get("score_video.serving.vllm_base")) is None:
        return kept
    choose = ORIGINAL.setdefault("choose", models.Compressing._kept)

    def choose_and_record(self: Any, *arguments: Any) -> Any:
        index = choose(self, *arguments)
        kept.append(index.tolist())
        return index

    models.Compressing._kept = choose_and_record
    return kept


ORIGINAL: dict[str, Any] = {}


def state() -> dict[str, bool]:
    from vllm.multimodal.video_prune import evs
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    return {
        "compressor imported": "score_video.compressor" in sys.modules,
        "models imported": "score_video.serving.vllm_models" in sys.modules,
        "runner patched": CPUModelRunner.load_model.__module__ != "vllm.v1.worker.cpu_model_runner"
        or hasattr(CPUModelRunner.load_model, "__wrapped_by_score_video__"),
        "evs patched": evs.compute_retention_mask.__module__ != evs.__name__,
    }


if __name__ == "__main__":
    jobs = json.loads(Path(sys.argv[1]).read_text())
    results: dict[str, Any] = {job["name"]: run(job) for job in jobs}
    results["state"] = state()
    Path(sys.argv[2]).write_text(json.dumps(results))
