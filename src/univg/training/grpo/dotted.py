"""Functions that a config names by their dotted path: `my_package.my_module.my_function`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any


class DottedPathError(ValueError):
    """A dotted path that leads to no function; its text is one line."""


def named_function(path: str, what: str) -> Callable[..., Any]:
    """The function at a dotted path (`my_module.my_function` or `my_module:my_function`).

    Modules are looked for as `python` would, in the current folder too. `what` names its use in errors.

    >>> named_function("math.sqrt", "reward")(9.0)
    3.0
    >>> named_function("math.sqroot", "reward")
    Traceback (most recent call last):
    univg.training.grpo.dotted.DottedPathError: reward 'math.sqroot': module math has no 'sqroot'; did you mean 'sqrt'?
    """
    module_name, _, name = path.replace(":", ".").rpartition(".")
    if not module_name or not name:
        raise DottedPathError(f"{what} {path!r}: write it as my_module.my_function")
    here = os.getcwd()
    if here not in sys.path:  # the command does not have it, unlike `python -m`
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise DottedPathError(
            f"{what} {path!r}: module {module_name} cannot be imported ({cause})"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise DottedPathError(f"{what} {path!r}: module {module_name} has no {_shown(module, name)}")
    return function


def _shown(module: Any, name: str) -> str:
    import difflib

    if hasattr(module, name):
        return f"function {name!r}, only a {type(getattr(module, name)).__name__} of that name"
    near = difflib.get_close_matches(name, [each for each in dir(module) if not each.startswith("_")], n=1)
    return f"{name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
