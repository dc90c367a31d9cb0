"""medlora: low-rank adapters that fit pretrained vision models to a hospital's own scans."""

from medlora._version import __version__

__all__ = ["__version__"]
