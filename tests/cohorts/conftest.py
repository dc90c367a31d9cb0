"""Fixtures of the tests of cohorts."""

from archives import archive, quiet

__all__ = ["archive", "quiet"]
