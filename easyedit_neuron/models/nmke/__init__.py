"""NMKE: Edit Less, Achieve More (dynamic sparse neuron masking)."""
