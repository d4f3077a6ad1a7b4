"""The study behind docs/results.md: ``python -m evaluation`` (``make results``).

Many small jobs, each a pure function of its parameters and of the code that it runs, whose result is kept as JSON; and
a document with tables and figures made from that JSON alone.

    recipe.yaml     everything that can be set, and the table of experiments; experiments.py: the jobs that these are
    jobs.py         what a job is, and the hash of the code that is part of its key
    work.py         what the jobs do; train.py below it
    pool.py         runs them in worker processes
    study.py        finds files, runs what has no result yet, keeps results, and refuses what is not whole
    results.py      the results, looked up as the document asks for them
    report.py       writes the document from templates/, which has its words and tables; figures.py draws

To add an experiment: groups of jobs under a new name in recipe.yaml (its comments say what a group can have), a section
in templates/results.md.j2 that is there once the results are, and a line in templates/checks.md.j2 if something is
expected of it. ``results.policy`` looks its policies up by the group's tag. One on another world than the miniature
names its ``environment`` in the group, and has an entry in ``WORLDS`` of train.py; other readers than those of
evaluation/readers are found by ``find_readers`` of study.py. Other work than training and testing is a function of
work.py, and a kind of group in experiments.py.

A change of code that decides results makes every job run again. Code that is not committed runs only with
``--allow-dirty``, and the document says so at its top; without all results of one code there is no document, but with
``--partial``, which says at its top what is missing. The clip is not part of the project: put it into
evaluation/footage, or name it with ``--footage``.

What lies in evaluation/results now, and with it docs/results.md, is of 0.1.0's code, whose jobs had no such hash (the
file of each says at which commit it was made). It stays, so that the document's figures can be traced, until the next
full run replaces it, and is never mixed with anything newer.
"""
