"""The papers' studies as commands; each leaves CSV files, a picture and a page in the folder ``--out``.

Each module has a function ``measure`` that returns tables and plots, and fills in ``command.Study``;
``docs/results/neurons.md`` and ``docs/results/kne.md`` say what they ask and what they show.
"""
