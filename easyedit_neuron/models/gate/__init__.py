"""The plain gate: where a stored key is met, z* - z is added to the hidden state; no weight changes."""
