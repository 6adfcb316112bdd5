"""Make a verb of the command line out of one typed config.

A verb's config is a :class:`Command`; every field of it is a flag, a key of ``--config FILE`` and a ``KEY=VALUE``. Of
one value written several times, the later of these counts: the default, the file, ``KEY=VALUE``, the flag.

    class WorldCommand(Command):
        out: Annotated[Path, Parameter(metavar="DIR")] = Field(description="Folder to write.")
        n: Annotated[int, Parameter(alias="-n")] = Field(default=13, ge=1, description="How many samples.")

    def write_world(command: WorldCommand) -> None:
        \"""Write samples of the procedural world.\"""

    app = make_verb("world", WorldCommand, write_world, example="univg world --out w")

What a field's help says is its description; `Parameter` is Cyclopts' own, for short flags and the like: in a field's
annotation, or, for a config that a room below defines, in the command's `flags`. The fields that one class defines
stand together in the help, below the title that the class gives (`section`).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, TypeVar

from cyclopts import App, Parameter
from pydantic import Field

from univg.cli.flags import (
    FIRST,
    choose_kind,
    describe_flag,
    find_item,
    is_text,
    list_parameters,
    name_flag,
)
from univg.config import Config, ConfigError, Tree, find_config, parse_value
from univg.errors import UnivgError, suggest

__all__ = ["Command", "Parameter", "make_verb"]

C = TypeVar("C", bound="Command")
P = TypeVar("P", bound=Config)


class Command(Config):
    """Base of every verb's config: it may be read from a file, and may name a field for what has no flag.

    A class that inherits a config of the library as well adds to it what one run needs. :meth:`part` gives that
    config back as it would be alone.
    """

    section: ClassVar[str] = FIRST
    positional: ClassVar[str | None] = None
    """The field that arguments without a flag fill, such as ``images``; of a list field all, else one."""
    flags: ClassVar[Mapping[str, Parameter]] = {}
    """What the flags of inherited fields are called, by the field's name: ``{"n": Parameter(alias="-n")}``."""
    presets: ClassVar[Mapping[str, str]] = {}
    """Switches that stand for a ``--config``, by the field's name: ``{"quick": "study-quick"}``."""

    config: Annotated[str | None, Parameter(metavar="FILE")] = Field(
        default=None, description="YAML file or preset."
    )

    def part(self, cls: type[P]) -> P:
        """Make a `cls`, which this command inherits, of its values; they have been validated and stay the same."""
        values = {name: getattr(self, name) for name in cls.model_fields}
        return cls.model_construct(_fields_set=self.model_fields_set & values.keys(), **values)


def make_verb(name: str, cls: type[C], run: Callable[[C], int | None], *, example: str | None = None) -> App:
    """Make the verb `name`, which reads a `cls` from its arguments and calls `run` with it.

    `name` is what follows ``univg``, such as ``data show``. The verb's help is the docstring of `run`; what `run`
    returns is the exit code, nothing being 0.
    Raises UnivgError, when called: arguments or a file that do not make a `cls`, one line for each fault.
    """

    def call(*arguments: str, **flags: Any) -> int | None:
        return run(_read_command(f"univg {name}", cls, arguments, flags))

    parameters = list(_build_parameters(cls))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return App(
        name=name.split()[-1],
        help=inspect.getdoc(run),
        help_epilogue=f"Example: {example}" if example else None,
        usage=f"Usage: univg {name} [OPTIONS] {_name_positional(cls, usage=True)}",
        default_command=call,
    )


def _read_command(verb: str, cls: type[C], arguments: tuple[str, ...], flags: dict[str, Any]) -> C:
    """Put together the values of `cls`, in the order of their rank, and validate them."""
    tree = Tree(cls, root=verb)
    source = flags.pop("config", cls.model_fields["config"].default)
    source = next((preset for switch, preset in cls.presets.items() if flags.get(switch)), source)
    try:
        if isinstance(source, str):
            _check_preset(cls, source)
            tree.read(find_config(source))
            _check_keys(verb, cls, tree)
        _put_arguments(verb, cls, tree, arguments)
        if "config" in tree.values:
            place = tree.find_origin(("config",))
            raise ConfigError(f"{place}: write --config before a file's name, and 'extends' inside a file")
        if isinstance(source, str):
            tree.put("config", source, f"--config {source}")
        for key, written in flags.items():
            if isinstance(written, str):
                place = f"{name_flag(cls, key)} {written}"
                text = is_text(cls.model_fields[key].annotation)
                tree.put(key, written if text else parse_value(written, place), place)
            else:
                tree.put(key, written, name_flag(cls, key))
        _refuse_missing(verb, cls, tree)
        return tree.build(cls)
    except ConfigError as error:
        raise UnivgError(_point_to_help(verb, str(error))) from error


def _check_preset(cls: type[Command], source: str) -> None:
    """Raise UnivgError for the name of a preset that configures another command."""
    from univg.cli.presets import PRESETS, VERBS_OF

    made = PRESETS.get(source)
    if made is not None and not issubclass(cls, made):
        remedy = f"choose another one, or run {VERBS_OF[made]}"
        raise UnivgError(f"this preset is for {VERBS_OF[made]}", f"--config {source}", remedy)


def _check_keys(verb: str, cls: type[Command], tree: Tree) -> None:
    """Raise UnivgError for a file with a key that this command has not, whose keys are all those of another one."""
    from univg.cli.presets import VERBS_OF

    strange = next((key for key in tree.values if key not in cls.model_fields), None)
    if strange is None or not any(issubclass(cls, made) for made in VERBS_OF):
        return
    written = {key for key in tree.values if tree.find_origin((key,)) != verb}
    fitting = [other for made, other in VERBS_OF.items() if written <= made.model_fields.keys()]
    if fitting:
        place = f"{tree.find_origin((strange,))} has {strange!r}"
        verbs = " or ".join(fitting)
        raise UnivgError(
            f"this config is for {verbs}", place, f"run {fitting[0]}, or choose another --config"
        )


def _put_arguments(verb: str, cls: type[Command], tree: Tree, arguments: tuple[str, ...]) -> None:
    """Put in every ``KEY=VALUE``, and what is left into the positional field, if the command has one."""
    given = []
    for argument in arguments:
        key = argument.partition("=")[0].partition(".")[0]
        if cls.positional is None or ("=" in argument and key in cls.model_fields):
            tree.override(argument)
        else:
            _refuse_misspelt(cls, argument)
            given.append(argument)
    if cls.positional is None or not given:
        return
    if find_item(cls.model_fields[cls.positional].annotation) is not None:
        tree.put(cls.positional, given, cls.positional)
    elif len(given) == 1:
        tree.put(cls.positional, given[0], given[0])
    else:
        raise UnivgError(f"Unexpected argument {given[1]!r}: see {verb} --help")


def _refuse_misspelt(cls: type[Command], argument: str) -> None:
    """Raise ConfigError for an argument that looks like ``KEY=VALUE``, with a key that is nearly one of `cls`."""
    key, equals, _ = argument.partition("=")
    if equals and get_close_matches(key, cls.model_fields) and not os.path.exists(argument):
        raise ConfigError(f"override {argument!r}: unknown key {key!r}; {suggest(key, cls.model_fields)}")


def _refuse_missing(verb: str, cls: type[Command], tree: Tree) -> None:
    missing = [
        key for key, field in cls.model_fields.items() if field.is_required() and key not in tree.values
    ]
    if missing:
        names = ", ".join(
            repr(_name_positional(cls) if key == cls.positional else name_flag(cls, key)) for key in missing
        )
        kind = "argument" if missing[0] == cls.positional else "option"
        raise UnivgError(f"Missing {kind}{'s' if len(missing) > 1 else ''} {names}: see {verb} --help")


def _point_to_help(verb: str, faults: str) -> str:
    """Add to faults of flags where flags are explained; others name their file and line, or the right key."""
    return "\n".join(
        f"{line}: see {verb} --help" if line.startswith("-") and not line.endswith("?") else line
        for line in faults.splitlines()
    )


def _build_parameters(cls: type[Command]) -> Iterator[inspect.Parameter]:
    """Yield what Cyclopts needs to know: one parameter without a flag, and each field as one with."""
    words = "Any of the settings below, by its key; dots lead into nested ones."
    if cls.positional is not None:
        words = (
            f"{cls.model_fields[cls.positional].description or ''} KEY=VALUE sets what is below by its key."
        )
    yield inspect.Parameter(
        "arguments",
        inspect.Parameter.VAR_POSITIONAL,
        annotation=Annotated[str, Parameter(name=_name_positional(cls), help=words)],
    )
    for key, field in cls.model_fields.items():
        if key != cls.positional:
            kind = choose_kind(field)
            yield inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=kind(),  # stands for nothing: what is not given is not passed on
                annotation=Annotated[kind, describe_flag(cls, key), *list_parameters(cls, key)],
            )


def _name_positional(cls: type[Command], usage: bool = False) -> str:
    """Return what help calls an argument without a flag; for the line of usage, with how many there may be."""
    if cls.positional is None:
        return "[KEY=VALUE]..." if usage else "KEY=VALUE"
    field = cls.model_fields[cls.positional]
    metavars = [one.metavar for one in list_parameters(cls, cls.positional) if one.metavar]
    name = metavars[0] if metavars else cls.positional.upper()
    if not usage or (field.is_required() and find_item(field.annotation) is None):
        return name
    return f"[{name}]" if find_item(field.annotation) is None else f"[{name}]..."
