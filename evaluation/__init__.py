"""The study behind docs/results.md: ``python -m evaluation`` (``make results``).

Many small jobs, each a pure function of its parameters and of the code that it runs, whose result is kept as JSON; and
a document with tables and figures made from that JSON alone.

    miniature.yaml  everything that can be set, and the table of experiments; composite.yaml the same on a real tower;
                    experiments.py: the jobs that these are
    jobs.py         what a job is, and the hash of the code that is part of its key
    work.py         what the jobs do, in the worlds of worlds.py
    pool.py         runs them in worker processes
    study.py        finds files, runs what has no result yet, keeps results, and refuses what is not whole
    results.py      the results, looked up as the document asks for them
    report.py       writes the document from templates/, which has its words and tables; figures.py draws

These stand by themselves, ``python -m evaluation.NAME``:

    towers                            what is kept on real towers that nothing was trained on
    gates                             what a choice before the vision tower costs on the composite world
    behind_gate                       what it is worth behind such a choice to know what was seen
    partial_towers, partial_dinov2    policies that choose before the tower, in the miniature and on the composite world

To add an experiment: groups of jobs under a new name in miniature.yaml (its comments say what a group can have), a
section in templates/results.md.j2 that is there once the results are, and a line in templates/checks.md.j2 if something
is expected of it. ``results.policy`` looks its policies up by the group's tag. One on another world than the miniature
names its ``environment`` in the group, and has an entry in ``WORLDS`` of worlds.py. Other work than training and
testing is a function of work.py, and a kind of group in experiments.py.

docs/miniature.md says which results count, and what --allow-dirty, --partial and --media are for.
"""
