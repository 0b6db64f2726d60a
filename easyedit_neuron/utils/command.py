"""The commands of single modules: wrong input is one line on stderr and exit code 2."""

import argparse


class Parser(argparse.ArgumentParser):
    """A parser whose ``error`` says what is wrong in one line, without the usage."""

    def error(self, message: str):
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")
