"""Studies of methods as commands: one option varied, everything else held, a table and a plot for each."""
