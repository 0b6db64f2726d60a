"""The lifelong runner: a stream of edits through one method, measured at checkpoints.

A run that was killed continues from its last saved state, with the same results as one that was not. What a
run leaves in its folder is described in ``docs/reference/run-files.md``.
"""

EASYEDIT_PREFIX = "EasyEdit:"
"""Of the names of EasyEdit's own methods in settings and results."""
