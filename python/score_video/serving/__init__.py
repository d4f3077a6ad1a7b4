"""Compression inside serving engines: which setting asks for it, and one plugin for each engine (docs/serving.md).

``setting.py`` reads the setting; ``vllm_plugin.py`` is the entry point that vLLM calls in each of its processes;
``vllm_models.py`` has vLLM's models with their choice of tokens replaced.
"""
