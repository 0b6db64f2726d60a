"""The least-squares problem of an edit and its solvers."""
