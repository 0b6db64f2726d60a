"""The bench: runs of many methods on the same sequences of edits, their rows, tables and pictures."""
