"""FiNE: fine-grained neuron-level knowledge editing (trained vectors on the neurons that say the object)."""
