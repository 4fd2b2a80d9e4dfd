"""The command lines' parser."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage block."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")
