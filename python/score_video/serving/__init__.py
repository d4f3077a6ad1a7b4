"""Compression inside serving engines: which setting asks for it, and one plugin for each engine (docs/serving.md).

``setting.py`` reads the setting; ``vllm_plugin.py`` is the entry point that vLLM calls in each of its processes, and
``vllm_check.py`` sees whether that has what ``vllm_needs.py`` lists. ``architectures.py`` lists models, and
``vllm_models.py`` has vLLM's with their choice of tokens replaced; ``vllm_gate.py`` chooses before their vision towers,
and ``vllm_tower.py`` runs these on what was chosen.
"""
