"""FiNE: fine-grained neuron-level knowledge editing (trained vectors on located neurons)."""
