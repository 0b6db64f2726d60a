"""Run folders to look at: a page with plots, pictures, and one table over all runs of a sweep.

    python -m easyedit_neuron.report RUN_OR_SWEEP_FOLDER... [--out report.html] [--png DIR] [--table FILE]

``runs`` reads what :mod:`easyedit_neuron.lifelong` wrote, ``panels`` says what is plotted, ``draw`` draws it
(matplotlib, the extra ``report``), ``page`` makes one HTML file of it, ``table`` the table, ``final`` what
one run shows at its end.
"""
