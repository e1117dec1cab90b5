"""Channels that messages go to: one file each, behind the protocol of `notifier.py`."""
