"""Settings for a model: where it can be edited, and a small search (``easyedit-neuron tune``)."""
