"""The programs: the command `univg` and what it runs. Arguments are parsed before anything heavy loads."""

from __future__ import annotations


class CommandError(Exception):
    """What a person can put right. `str()` is one line (a config with several faults: one line each)."""
