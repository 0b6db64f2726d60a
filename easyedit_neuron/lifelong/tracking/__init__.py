"""Following a run from outside: the interface of callbacks, and trackers that write to well-known places.

A tracker shows what the files of the run hold. When a run continues, each is told what was recorded so far,
and makes its own record agree with it.
"""
