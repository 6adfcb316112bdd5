"""Read typed configs: a pydantic model, a YAML file over its defaults, ``key=value`` overrides over both.

A config names everything a run may vary. Nothing is guessed and nothing unknown is let through: each fault is
one line that says which value, where it was written, and what would have been right.

    extends: tiny-base.yaml        # optional: another file, relative to this one, taken first
    steps: 4000
    optimizer:
      lr: 1e-3
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from univg.errors import UnivgError, suggest
from univg.files import write_whole

__all__ = [
    "Config",
    "ConfigError",
    "Tree",
    "fault_at",
    "find_config",
    "load_config",
    "parse_value",
    "save_config",
]

Keys = tuple[str | int, ...]  # ("optimizer", "lr"), ("stages", 0, "steps")
C = TypeVar("C", bound="Config")


class ConfigError(UnivgError):
    """Report a config that cannot be used, in one line for each fault; `univg.cli.verbs` adds where help is."""


class Config(BaseModel):
    """Base of every config: immutable, closed to unknown keys, finite numbers only.

    >>> class Optimizer(Config):
    ...     lr: float = 1e-3
    >>> load_config(Optimizer, overrides=["lr=5e-6"])
    Optimizer(lr=5e-06)
    >>> load_config(Optimizer, overrides=["lrr=1"])
    Traceback (most recent call last):
    univg.config.ConfigError: override 'lrr=1': unknown key 'lrr'; did you mean 'lr'?
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )
    section: ClassVar[str] = "Settings"
    """The title above the fields that a class defines, where they are flags of a command."""

    @field_validator("*", mode="before")
    @classmethod
    def _take_no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads yes and on as truth values, and pydantic takes those for 1."""
        assert info.field_name is not None
        if _holds_truth_value(value) and _is_of_numbers(cls.model_fields[info.field_name].annotation):
            raise ValueError("Input should be a number, not true or false")
        return value


def load_config(cls: type[C], source: str | Path | None = None, overrides: Sequence[str] = ()) -> C:
    """Load a config of class `cls`: its defaults, then `source`, then `overrides`, the later winning.

    `source` is a path or a preset's name (:func:`find_config`). An override is ``dotted.key=value`` with a
    YAML value; a list's entry is named by its index (``stages.0.steps=10``). Mappings merge key by key,
    everything else is replaced whole.

    Raises ConfigError: a file that cannot be read or parsed, an override without ``=``, an unknown key, a
    value of a wrong type or out of its bounds.
    """
    tree = Tree(cls)
    if source is not None:
        tree.read(find_config(source))
    for override in overrides:
        tree.override(override)
    return tree.build(cls)


def fault_at(keys: Keys, why: str, value: Any) -> ValidationError:
    """Make the error that a validator raises for the value at `keys` inside the one that it validates."""
    fault = PydanticCustomError("refused", "{why}", {"why": why})
    return ValidationError.from_exception_data("", [InitErrorDetails(type=fault, loc=keys, input=value)])


def save_config(config: Config, path: str | Path) -> None:
    """Write all values, defaults included, as YAML that reads back equal; the whole file or nothing."""
    values = config.model_dump(mode="json")
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if _BREAKS.intersection(text):  # PyYAML writes these as they are and reads them as ends of lines
        text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=False)
    write_whole(path, text)


def find_config(source: str | Path) -> Path:
    """Find the file behind `source`: a path as it stands, or the bare name of a preset that univg ships.

    Raises ConfigError: no such file; for a bare name, with the nearest preset.
    """
    path = Path(source)
    if path.exists() and not path.is_dir():
        return path
    if path.suffix in (".yaml", ".yml") or path.name != str(source):
        raise ConfigError(f"{source}: no such config file")
    presets = {file.stem: file for folder in _list_preset_folders() for file in sorted(folder.glob("*.yaml"))}
    if path.name in presets:
        return presets[path.name]
    raise ConfigError(f"no preset named {path.name!r}; {suggest(path.name, list(presets))}")


def _list_preset_folders() -> Iterator[Path]:
    package = Path(__file__).resolve().parent
    yield package / "configs"  # in a wheel
    yield package.parents[1] / "configs"  # in a checkout


class Tree:
    """Nested values over the defaults of a config, and for each of them where it was written.

    What is put in later wins. A fault that :meth:`build` finds is told at the place where its value was written;
    `root` is the place of what was written nowhere.
    """

    def __init__(self, cls: type[Config], root: str = "config") -> None:
        self.values = _collect_defaults(cls)
        self._cls = cls
        self._root = root
        self._origins: dict[Keys, str] = {}

    def build(self, cls: type[C]) -> C:
        """Validate all values as a `cls`. Raises ConfigError: one line for each fault."""
        try:
            return cls.model_validate(self.values)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain_all(cls, self, error.errors()))) from None

    def put(self, key: str, value: Any, place: str) -> None:
        """Set one value at the top, written at `place`."""
        self.values[key] = value
        for keys in [keys for keys in self._origins if keys[0] == key]:
            del self._origins[keys]
        self._origins[(key,)] = place

    def read(self, path: Path, below: tuple[Path, ...] = ()) -> None:
        """Merge the YAML file at `path`, after the one it extends; `below` is the chain that led here."""
        if path.resolve() in below:
            raise ConfigError(f"{path}: extends itself")
        values, lines = _parse_file(path)
        base = values.pop("extends", None)
        if base is not None:
            place = f"{path}:{lines[('extends',)]}"
            if not isinstance(base, str):
                raise ConfigError(
                    f"{place}: 'extends' names one file, relative to this one, or a preset; got {base!r}"
                )
            beside = path.parent / base
            if not beside.is_file():
                try:
                    beside = find_config(base.removesuffix(".yaml"))
                except ConfigError as error:
                    raise ConfigError(f"{place}: extends {base!r}: no such config file; {error}") from None
            self.read(beside, (*below, path.resolve()))
        _merge(self.values, values)
        self._origins.update({keys: f"{path}:{line}" for keys, line in lines.items()})

    def override(self, text: str) -> None:
        """Set one value from ``dotted.key=value``."""
        place = f"override {text!r}"
        dotted, equals, written = text.partition("=")
        names = dotted.strip().split(".")
        if not equals or not all(names):
            raise ConfigError(f"{place}: write it as key=value, with dots between nested keys")
        value = parse_value(written, place)
        node: Any = self.values
        keys: Keys = ()
        for depth, name in enumerate(names):
            if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
                key: str | int = int(name)
            elif isinstance(node, dict):
                key = name
            else:
                raise ConfigError(f"{place}: {_join_keys(keys)!r} is {node!r}, which has no {name!r}")
            keys = (*keys, key)
            if depth == len(names) - 1:
                node[key] = value
            elif isinstance(node, list):
                node = node[int(name)]
            else:
                if name not in node:
                    self._origins[keys] = place
                node = node.setdefault(name, _find_default_mapping(self._cls, keys))
        self._origins[keys] = place

    def find_given(self, fault: Any) -> Keys:
        """Return the keys of the value that one of pydantic's faults is about, without the kinds named there."""
        keys: Keys = fault["loc"]
        node: Any = self.values
        for depth, key in enumerate(keys):
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                return keys if fault["type"] in ("missing", "refused") else keys[:depth]
        return keys

    def find_origin(self, keys: Keys) -> str:
        """Return where the value at `keys`, or the nearest value around it, was written."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self._origins:
                return self._origins[keys[:end]]
        return self._root


def parse_value(text: str, place: str) -> Any:
    """Read one YAML value, written at `place`. Raises ConfigError: it is none."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{place}: not a YAML value: {_describe(error)}") from None


def _collect_defaults(cls: type[BaseModel]) -> dict[str, Any]:
    """Return those defaults of `cls` that hold others, so that a key given in one leaves its neighbours alone.

    Without it ``optimizer.lr=1`` over a default ``Optimizer(weight_decay=0.1)`` would lose the weight decay.
    """
    values: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, BaseModel):
            values[name] = _collect_defaults(type(default))
            _merge(values[name], default.model_dump(mode="json", exclude_unset=True))
        elif isinstance(default, (list, tuple)):
            values[name] = to_jsonable_python(default)
    return values


def _find_default_mapping(cls: type[BaseModel], keys: Keys) -> dict[str, Any]:
    """Return the mapping that is at `keys` by default, so that a key given in it leaves its neighbours alone."""
    field = cls.model_fields.get(str(keys[0]))
    default = None if field is None else field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel) and len(keys) > 1:
        return _find_default_mapping(type(default), keys[1:])
    return dict(default) if isinstance(default, dict) and len(keys) == 1 else {}


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


class _Loader(yaml.SafeLoader):
    """Read YAML in which 1e-3 is a number. Version 1.1 of the language asks for a dot, and else reads a text."""


class _Dumper(yaml.SafeDumper):
    """Write YAML that `_Loader` reads back: a text that it would take for a number is quoted."""


_BREAKS = frozenset("\x85\u2028\u2029\ufeff")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _parse_file(path: Path) -> tuple[dict[str, Any], dict[Keys, int]]:
    """Read the mapping written at `path`, and the line (from 1) of each of its values."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_Loader)
        lines = dict(_find_lines(root, ())) if root is not None else {}
        values = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {_describe(error)}") from None
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {_describe(error)}") from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values, not a {type(values).__name__}")
    return values, lines


def _find_lines(node: yaml.Node, keys: Keys) -> Iterator[tuple[Keys, int]]:
    """Yield (keys, line) of every value under `node`; raise for a key written twice, of which YAML keeps one."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            if name.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{name.value!r} twice", problem_mark=name.start_mark)
            seen.add(name.value)
            yield (*keys, name.value), name.start_mark.line + 1
            yield from _find_lines(value, (*keys, name.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*keys, index), value.start_mark.line + 1
            yield from _find_lines(value, (*keys, index))


def _describe(error: Exception) -> str:
    """Return an error's text on one line."""
    text = getattr(error, "problem", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())


def _explain_all(cls: type[BaseModel], tree: Tree, faults: Sequence[Any]) -> Iterator[str]:
    """Yield a line for each value at fault: pydantic has a fault for each kind that a type takes, and one for a list
    whose entries all have some."""
    at: dict[Keys, list[Any]] = {}
    for fault in faults:
        at.setdefault(tree.find_given(fault), []).append(fault)
    for keys, told in at.items():
        if told[0]["type"] == "too_short" and any(other[: len(keys)] == keys != other for other in at):
            continue
        whys = dict.fromkeys(_say_why(fault) for fault in told)
        yield _explain(cls, tree, keys, told[0], ", or ".join(whys))


def _explain(cls: type[BaseModel], tree: Tree, keys: Keys, fault: Any, why: str) -> str:
    """Write what pydantic says of the value at `keys` as one line."""
    name, place = _join_keys(keys), tree.find_origin(keys)
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key {name!r}; {suggest(name, _list_keys(cls))}"
    if fault["type"] == "missing":
        return f"{place}: {name!r} has no default and must be given"
    if not keys or (len(keys) == 1 and place.startswith("-")):  # a flag, which says its name and value
        return " ".join(f"{place}: {why}".split())
    is_said = isinstance(fault["input"], dict) or fault["type"] == "refused"
    given = "" if is_said else f", got {fault['input']!r}"
    return " ".join(f"{place}: {name}: {why}{given}".split())


def _say_why(fault: Any) -> str:
    if fault["type"] in ("tuple_type", "list_type"):
        entry = fault["input"] if isinstance(fault["input"], (str, int, float)) else "…"
        return f"Input should be a list, such as [{entry}]"
    mapping = "Input should be a mapping, such as {KEY: VALUE}"
    words = {"too_short": "Input should not be empty", "dict_type": mapping, "model_type": mapping}
    return words.get(fault["type"], str(fault["msg"]).removeprefix("Value error, "))


def _holds_truth_value(value: Any) -> bool:
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return isinstance(value, bool) or any(isinstance(entry, bool) for entry in entries)


def _is_of_numbers(annotation: Any) -> bool:
    """Tell whether a type holds numbers and nothing else that a truth value could be meant for."""
    leaves = _find_leaves(annotation)
    return bool(leaves & {int, float}) and not leaves & {bool, Any}


def _find_leaves(annotation: Any) -> set[Any]:
    parts = get_args(annotation)
    return set().union(*map(_find_leaves, parts)) if parts else {annotation}


def _join_keys(keys: Keys) -> str:
    return ".".join(map(str, keys))


def _list_keys(cls: type[BaseModel], prefix: str = "") -> list[str]:
    """List every dotted key of `cls`, those of configs in it included; entries of lists stand as ``0``."""
    known = []
    for name, field in cls.model_fields.items():
        known.append(prefix + name)
        known += _list_keys_below(field.annotation, f"{prefix}{name}.")
    return known


def _list_keys_below(annotation: Any, prefix: str) -> list[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _list_keys(annotation, prefix)
    in_list = "0." if getattr(annotation, "__origin__", None) in (list, tuple) else ""
    return [key for argument in get_args(annotation) for key in _list_keys_below(argument, prefix + in_list)]
