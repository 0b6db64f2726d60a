"""IKE, in-context knowledge editing: the new facts stand in front of each question, no weight changes."""
