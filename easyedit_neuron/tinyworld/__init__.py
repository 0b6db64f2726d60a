"""tiny-world: a generated world of people, places and organisations, and tiny-llama, the model trained on it.

``world`` draws the facts, ``relations`` holds every phrasing, ``corpus`` writes the training and held-out
text, ``records`` writes the edit cases in the shapes that editing data usually has, ``train`` trains the
model. ``python -m easyedit_neuron.tinyworld --help`` does all of it from one seed.
"""
