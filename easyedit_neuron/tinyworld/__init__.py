"""tiny-world: a generated world of people, places and organisations, and tiny-llama, the model trained on it.

``world`` draws the facts, ``relations`` holds their phrasings, ``corpus`` writes the training and held-out
text, ``records`` and ``questions`` the edit cases and questions, ``training`` trains the model. All of it
comes from one seed: ``python -m easyedit_neuron.tinyworld --help``.
"""
