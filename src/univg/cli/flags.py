"""Describe the fields of a config as flags of the command line, for :mod:`univg.cli.verbs`.

Cyclopts collects texts and draws the help; what a text means is decided by pydantic, which knows the field.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from cyclopts import Group, Parameter
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from univg.config import Config

FIRST = "Options"
"""The title above a command's own flags, which come first."""
_TYPES = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}


def describe_flag(cls: type[Config], key: str) -> Parameter:
    """Describe the flag of a field, as far as the field's own `Parameter` does not."""
    field = cls.model_fields[key]
    kind = choose_kind(field)
    choices = list_choices(field.annotation)
    bounds = say_bounds(field)
    many = kind == list[str]
    inner = find_item(field.annotation) if many else field.annotation
    types = [_TYPES[leaf] for leaf in list_leaves(inner) if leaf in _TYPES]
    return Parameter(
        name=f"--{key.replace('_', '-')}",
        help=" ".join(filter(None, [field.description, bounds, "[required]" if field.is_required() else ""])),
        metavar=(types[0] if is_text(inner) and types else "YAML") if choices is None else None,
        choices=choices,
        show_default=say_default(field),
        required=False,  # it may come from elsewhere
        allow_repeating=None if many else True,  # the last one counts
        negative=() if many else None,
        group=find_group(cls, key),
    )


def find_group(cls: type[Config], key: str) -> Group:
    """Find the section of a field: the title that the class says in which the field was first defined."""
    titles = [FIRST]
    for base in cls.__mro__:
        if issubclass(base, Config) and key in inspect.get_annotations(base):
            title = base.section
        if issubclass(base, Config):
            titles.append(base.section)
    return Group(title, sort_key=titles.index(title))


def choose_kind(field: FieldInfo) -> Any:
    """Tell what Cyclopts has to collect: a switch, several texts, or one text; all else is pydantic's matter."""
    if set(list_leaves(field.annotation)) == {bool}:
        return bool
    item = find_item(field.annotation)
    return list[str] if item is not None and is_text(item) else str


def is_text(annotation: Any) -> bool:
    """Tell whether a flag's text is taken as it stands. Otherwise it is YAML: a mapping, a list, on or off."""
    leaves = list(list_leaves(annotation))
    return all(leaf in _TYPES or isinstance(leaf, str) for leaf in leaves)


def find_item(annotation: Any) -> Any:
    """Return the type of the entries of a list or a tuple of any length, None for any other type."""
    found = [one for one in list_members(annotation) if get_origin(one) in (list, tuple)]
    arguments = get_args(found[0]) if len(found) == 1 == len(list(list_members(annotation))) else ()
    endless = arguments and (get_origin(found[0]) is list or arguments[-1] is Ellipsis)
    return arguments[0] if endless else None


def list_members(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union, None left out."""
    if get_origin(annotation) in (Union, UnionType):
        for argument in get_args(annotation):
            yield from list_members(argument)
    elif get_origin(annotation) is Annotated:
        yield from list_members(get_args(annotation)[0])
    elif annotation is not type(None):
        yield annotation


def list_leaves(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union, and of literals the values."""
    for member in list_members(annotation):
        if get_origin(member) is Literal:
            yield from get_args(member)
        else:
            yield member


def list_choices(annotation: Any) -> tuple[str, ...] | None:
    """Return the texts among which a field's type lets choose, None if it takes others too."""
    leaves = list(list_leaves(annotation))
    return tuple(leaves) if leaves and all(isinstance(leaf, str) for leaf in leaves) else None


def say_bounds(field: FieldInfo) -> str:
    """Say a number's bounds, as in ``[x>=1]`` and ``[0<=x<=1]``."""
    low = next((one for one in field.metadata if isinstance(one, (Ge, Gt))), None)
    high = next((one for one in field.metadata if isinstance(one, (Le, Lt))), None)
    above = "" if high is None else f"<={high.le}" if isinstance(high, Le) else f"<{high.lt}"
    if above and low is not None:
        return f"[{low.ge}<=x{above}]" if isinstance(low, Ge) else f"[{low.gt}<x{above}]"
    below = "" if low is None else f">={low.ge}" if isinstance(low, Ge) else f">{low.gt}"
    return f"[x{below}{above}]" if below or above else ""


def say_default(field: FieldInfo) -> str | bool:
    """Show a default that says something on one line; a nested config does not."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required() or default is None or default is False or default in ((), "", {}):
        return False
    if isinstance(default, (BaseModel, dict, list, tuple)):
        try:
            plain = list(default) if isinstance(default, tuple) else default
            return yaml.safe_dump(plain, default_flow_style=True, sort_keys=False).strip()
        except yaml.YAMLError:
            return False
    return str(default)


def list_parameters(cls: type[Config], key: str) -> list[Parameter]:
    """Return what a field's annotation and its command's `flags` say of its flag."""
    said = [one for one in cls.model_fields[key].metadata if isinstance(one, Parameter)]
    flags: Mapping[str, Parameter] = getattr(cls, "flags", {})
    return [*said, flags[key]] if key in flags else said


def name_flag(cls: type[Config], key: str) -> str:
    """Return a field's first flag, as the user writes it."""
    names = [name for one in list_parameters(cls, key) for name in one.name or ()]
    return names[0] if names else f"--{key.replace('_', '-')}"
