"""The papers' studies as commands; each leaves CSV files, a picture and a page in the folder ``--out``.

Of neurons, on a model and data: ``roles``, ``ablation``, ``meanings``, ``sites``. Of finished runs:
``drift``, ``selection``. Of one method, with one hyperparameter varied: ``kne``.

Each of these modules says what is asked and how it is measured, has a function ``measure`` that returns
tables and plots, and fills in the skeleton ``command.Study``. They share ``output`` (files), ``plots`` (ways
of drawing), ``averages``, ``tasks`` (facts), ``kinds`` and ``silence`` (neurons), ``changed_weights``,
``reach`` and ``edit_bench``.
"""
