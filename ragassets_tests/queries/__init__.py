"""Mirrors `ragassets/queries`."""
