"""Prefill and time to first token, measured: ``python -m bench.prefill`` (docs/prefill.md; on GPUs by ``make gpu``).

geometry.py   the models' shapes, and the count of operations; a model is added here
model.py      a model of random weights, a prompt with a video, the vision tower's work
baselines.py  EVS and VidCom2 as serving engines run them
timing.py     times, peak memory, the choice of an attention kernel
measure.py    what is measured: one record for each phase, length, retention and method
results.py    records on disk
findings.py   what follows from them: speed-ups, shares, targets
report.py     the document; plot.py its figures
"""
