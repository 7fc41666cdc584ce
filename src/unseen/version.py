"""The version, alone, so that anything can say it."""

__version__ = "0.1.0"
