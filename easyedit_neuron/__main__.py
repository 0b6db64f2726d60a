"""``python -m easyedit_neuron``: the same as the console script ``easyedit-neuron``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
