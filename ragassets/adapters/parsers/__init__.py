"""Parsers: bytes of one format family to elements."""
