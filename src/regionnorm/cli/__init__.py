"""The command line. Each command parses, calls the library, and prints.

The library is imported inside the commands: help must not wait for torch.
"""

from regionnorm.cli.root import app, main

__all__ = ["app", "main"]
