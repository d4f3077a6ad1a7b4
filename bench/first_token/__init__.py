"""From a video file to the first new token, by phase: ``python -m bench.first_token`` (docs/first_token.md).

It needs torchvision. Where that lies beside the environment, as ``make test`` puts it:
``PYTHONPATH=tools/torchvision_site:.venv/torchvision .venv/bin/python -m bench.first_token``.

setting.py  the clip, the model of random weights, its processor; the ways that are compared
measure.py  a way's times by phase: transformers alone, or `score ask`
pixels.py   what becomes of frames before the vision tower: the processor's way and ours
flops.py    operations of a vision tower that sees all tokens or some
results.py  what is kept, and what follows from it
report.py   the document
"""
