"""Compression inside serving engines: which setting asks for it, and one plugin for each engine (docs/serving.md).

``setting.py`` reads the setting; ``vllm_plugin.py`` is the entry point that vLLM calls in each of its processes, and
``vllm_check.py`` what it asks of the vLLM it finds; ``architectures.py`` lists models, and ``vllm_models.py`` has
vLLM's with their choice of tokens replaced.
"""
