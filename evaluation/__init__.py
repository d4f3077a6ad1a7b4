"""The study behind docs/results.md: ``python -m evaluation`` (``make results``).

Many small jobs on the miniature world, each a pure function of its parameters and of the code that it runs, whose
result is kept as JSON; and a document with tables and figures made from that JSON alone.

    recipe.py       everything that can be set: sizes, seeds, how policies are trained, the clip behind the footage
    experiments.py  the jobs of each experiment
    jobs.py         what a job is, and the hash of the code that is part of its key
    work.py         what the jobs do; train.py below it
    pool.py         runs them in worker processes
    study.py        finds files, runs what has no result yet, keeps results, and refuses what is not whole
    report.py       writes the document from templates/; checks.py and figures.py are parts of it

A change of code that decides results makes every job run again. Code that is not committed runs only with
``--allow-dirty``, and the document says so at its top; without all results of one code there is no document, but with
``--partial``, which says at its top what is missing. The clip is not part of the project: put it into
evaluation/footage, or name it with ``--footage``.

What lies in evaluation/results now, and with it docs/results.md, is of 0.1.0's code, whose jobs had no such hash (the
file of each says at which commit it was made). It stays, so that the document's figures can be traced, until the next
full run replaces it, and is never mixed with anything newer.
"""
