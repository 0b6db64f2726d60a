"""The papers' studies as commands; each leaves its numbers as CSV, a picture and a page in the folder
``--out``.

Of neurons, on a model and data: ``roles``, ``ablation``, ``meanings``, ``sites``. Of runs: ``drift``,
    ``selection``. Of
one method, a hyperparameter varied: ``kne``. What they share: ``command`` (arguments, model, errors),
    ``output`` (files),
``plots`` (ways of drawing), ``silence``, ``tasks``, ``changed``, ``measure``.
"""
