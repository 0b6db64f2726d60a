"""General ability of an edited model, measured with lm-eval (extra ``eval``) on the model in memory.

``general_ability`` measures tasks on any model; ``tasks`` names and loads them; ``local`` and ``world`` read
their documents; ``code`` runs the programs that a model writes. ``python -m easyedit_neuron.ability``
measures a model without editing it. Importing this package imports neither lm-eval nor torch.
"""
