"""The experimental tables and figures of the four papers, as data: ``tables/PAPER.yaml``."""
