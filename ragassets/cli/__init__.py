"""The `ragassets` command: parses, calls, prints. What is computed or looked up lives below it."""

from ragassets.cli.application import app

__all__ = ["app"]
