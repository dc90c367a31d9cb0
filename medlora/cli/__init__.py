"""The command line: one thin file per verb. Nothing heavy is imported before a verb runs."""

from medlora.cli.main import main

__all__ = ["main"]
