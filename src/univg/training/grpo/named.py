"""Find the functions that a config names: by an entry of a table, or by a dotted path
(`my_module.my_function`)."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from univg.errors import UnivgError, offer
from univg.files import digest_file

__all__ = ["digest_functions", "find_function"]


def find_function(name: str, known: Mapping[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    """Return `known[name]`, or the function at the dotted path `name` (`my_module.my_function` or with a
    colon).

    Modules are looked for as `python` would, in the current folder too. `what` names the use in errors, each of
    which is one line: UnivgError.

    >>> find_function("math.sqrt", {}, "reward")(9.0)
    3.0
    >>> find_function("math.sqroot", {}, "reward")
    Traceback (most recent call last):
    univg.errors.UnivgError: reward 'math.sqroot': module math has no 'sqroot'; did you mean 'sqrt'?
    """
    # Neither pydantic's ImportString nor pkgutil.resolve_name tells a module that fails to import from a name that is
    # not in it, and neither suggests the nearest name.
    if name in known:
        return known[name]
    module_name, _, attribute = name.replace(":", ".").rpartition(".")
    if not module_name or not attribute:
        dotted = f"or give the dotted path of a function (my_module.my_{what})"
        raise UnivgError(f"{what} {name!r}", remedy=f"{offer(name, known)}, {dotted}")
    here = os.getcwd()
    if here not in sys.path:  # the command does not have it, unlike `python -m`
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of the user's may fail in any way
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        is_lost = isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]
        remedy = f"put {error.name}.py into {here}, or its folder into PYTHONPATH" if is_lost else ""  # type: ignore[attr-defined]
        raise UnivgError(
            f"{what} {name!r}", f"module {module_name} cannot be imported ({cause})", remedy
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UnivgError(
            f"{what} {name!r}", f"module {module_name} has no {_describe_missing(module, attribute)}"
        )
    return function


def digest_functions(functions: Mapping[str, Callable[..., Any]]) -> dict[str, str]:
    """Return the digest of the file that each function is written in, of those that are not univg's own.

    A resumed run would learn something else from a function that was changed meanwhile.
    """
    found = {}
    for name, function in functions.items():
        file = inspect.getsourcefile(inspect.unwrap(function)) if inspect.isroutine(function) else None
        if file and not getattr(function, "__module__", "").startswith("univg."):
            found[name] = digest_file(Path(file))
    return found


def _describe_missing(module: Any, name: str) -> str:
    if hasattr(module, name):
        return f"function {name!r}, only a {type(getattr(module, name)).__name__} of that name"
    near = difflib.get_close_matches(name, [each for each in dir(module) if not each.startswith("_")], n=1)
    return f"{name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
