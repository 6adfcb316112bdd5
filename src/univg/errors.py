"""Errors that a person can act on: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

__all__ = ["UnivgError", "offer", "one_line", "suggest"]


_MANY = 15
"""More choices than a line shows where one of them is near."""


class UnivgError(Exception):
    """Report a fault that the caller can put right, in one line: the cause, the place, the remedy.

    The command catches it once, at its edge, prints `error: <text>` and exits with `exit_code`. Subclass it only
    where somebody catches the subclass.

    >>> print(UnivgError("no such file", "a.png", "check the path"))
    no such file: a.png: check the path
    >>> print(UnivgError("the question is empty", remedy="say what to look for"))
    the question is empty: say what to look for
    """

    exit_code = 2

    def __init__(self, cause: object, place: object = "", remedy: str = "") -> None:
        # The cause may be several, one a line; a file's name with a line break in it is not.
        self.cause, self.place, self.remedy = str(cause), one_line(place), remedy
        super().__init__(": ".join(part for part in (self.cause, self.place, self.remedy) if part))

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel from data-loader workers; the default would pass the joined text as the cause.
        return type(self), (self.cause, self.place, self.remedy)


def one_line(text: object) -> str:
    r"""Return text with every control character escaped, so that a message stays on one line.

    >>> one_line("a\nb.png")
    'a\\nb.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def suggest(name: str, known: Collection[str]) -> str:
    """Suggest the nearest of `known`: one with the same last part wherever it is, else the most alike, else all.

    >>> suggest("regoin", ["diff", "region"]), suggest("x", ["diff", "region"])
    ("did you mean 'region'?", 'known: diff, region')
    """
    last = name.rpartition(".")[2]
    near = [key for key in known if key.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(last, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"


def offer(name: str, known: Iterable[str]) -> str:
    """Say what to choose from instead of `name`, and which of it is the nearest.

    >>> offer("regoin", ["diff", "region"]), offer("x", ["diff", "region"])
    ("choose from diff, region (did you mean 'region'?)", 'choose from diff, region')
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near and len(names) > _MANY:
        return f"did you mean {near[0]!r}?"
    return f"choose from {', '.join(names)}" + (f" (did you mean {near[0]!r}?)" if near else "")
