"""Read API keys from the environment, for asking a server and for being one."""

from __future__ import annotations

import os

from univg.errors import UnivgError

__all__ = ["read_key", "tidy_key"]


def read_key(variable: str) -> str | None:
    """Return the API key that an environment variable holds; None for one that is not set, or empty.

    Raises UnivgError for a key that no request can carry.
    """
    key = os.environ.get(variable)
    return tidy_key(key, variable) if key else None


def tidy_key(key: str, place: str) -> str:
    """Return a key without the white space around it, which comes of files and of quotes. Raises UnivgError for a key
    with anything in it that no request can carry."""
    tidy = key.strip()
    if not tidy or not all("!" <= letter <= "~" for letter in tidy):
        cause = (
            "it holds white space, or a letter that no request can carry"
            if tidy
            else "it holds white space alone"
        )
        raise UnivgError(f"no usable key: {cause}", place, "set it to the key alone, on one line")
    return tidy
