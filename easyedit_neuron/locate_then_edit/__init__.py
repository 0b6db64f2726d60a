"""Editing paths: from a request and a neuron mask to the factors of a weight delta.

``target`` finds z*, ``keys`` the keys and the present value, ``solve`` the delta's right factor, ``execute``
runs the layer loop without leaving a trace in the model.
"""
