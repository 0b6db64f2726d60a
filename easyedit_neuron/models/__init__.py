"""One folder per editing method, laid out as in EasyEdit: ``<name>_hparams.py`` and ``<name>_main.py``."""
