"""Run folders to look at: a page with plots, pictures, and one table over all runs of a sweep.

``python -m easyedit_neuron.report`` and the command of a run write them. ``panels`` holds what is plotted, as
numbers; ``panel_plots`` and ``figures`` draw it with matplotlib (the extra ``report``).
"""
