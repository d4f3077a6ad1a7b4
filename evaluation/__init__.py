"""The study behind docs/results.md: ``python -m evaluation`` (``make results``).

Many small jobs on the miniature world, each a pure function of its parameters whose result is kept as JSON, and a
document with tables and figures made from that JSON alone.

    recipe.py       everything that can be set: sizes, seeds, how policies are trained
    experiments.py  the jobs of each experiment
    work.py         what the jobs do; measure.py and train.py below it
    pool.py         runs them in worker processes
    study.py        finds files, runs what has no result yet, keeps results
    report.py       writes the document; its parts below it
"""
