"""Small helpers that know nothing of models and edits: files, timing, fingerprints, memory, error texts."""
