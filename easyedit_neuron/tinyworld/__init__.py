"""tiny-world: a generated world of people, places and organisations, and tiny-llama, the model trained on it.

All of it comes from one seed: ``python -m easyedit_neuron.tinyworld --help``.
"""
