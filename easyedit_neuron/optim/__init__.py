"""Optimisation shared by the methods that train vectors."""
