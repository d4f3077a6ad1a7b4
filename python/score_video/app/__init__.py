"""The page of ``score app``: what is kept of a clip, beside other rules, at any retention; on this machine alone.

A small server (starlette, on uvicorn) and one page of plain HTML, CSS and JavaScript. :mod:`.server` has the routes,
:mod:`.guard` what is let in, :mod:`.pages` what each open page holds, :mod:`.decoding` reads uploads in a process of
their own, :mod:`.encoded` and :mod:`.choosing` compute, :mod:`.exports` writes files.
"""
