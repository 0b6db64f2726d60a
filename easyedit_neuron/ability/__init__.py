"""General ability of an edited model, measured with lm-eval (extra ``eval``) on the model in memory.

- :mod:`.measure`: :class:`Ability`, some tasks and how to measure them on any model;
- :mod:`.tasks`: which tasks there are, and how they are loaded: lm-eval's own from the hub, the same from
  local files, tiny-world's;
- :mod:`.local`, :mod:`.world`: documents from the benchmarks' upstream files, and of the shipped world;
- :mod:`.code`: runs what a model has written, for humaneval.

``python -m easyedit_neuron.ability`` measures a model without editing it. Importing this package imports
neither lm-eval nor torch.
"""
