"""Run folders to look at: a page with plots, pictures, and one table over all runs of a sweep.

    python -m easyedit_neuron.report RUN_OR_SWEEP_FOLDER... [--out report.html] [--png DIR] [--table FILE]

``runs`` reads what ``easyedit_neuron.lifelong`` wrote. ``panels`` holds what is plotted, as numbers;
``panel_plots`` draws it and ``figures`` makes SVG and PNG of it (matplotlib, the extra ``report``). ``page``
writes the HTML file, ``table`` the table over all runs, and ``final`` the table of one run at its end.
"""
