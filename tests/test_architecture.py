"""The house rules that a program can check: who imports whom, what stays light, the words, the lengths.

The rules and their reasons are in CONTRIBUTING.md; a change of a rule begins there.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import univg

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "src" / "univg"
FILES = sorted(PACKAGE.rglob("*.py"))

ROOT = {"errors", "files", "config", "terminal"}
GROUND = {"grounding", "pictures", "report"}
LAYERS: list[set[str]] = [
    ROOT,
    GROUND,
    {"world", "models"},
    {"data"},
    {"training", "evaluate", "construct", "serve"},
]
LAYERS += [{"study"}, {"cli"}, {"__main__"}]
MAY_IMPORT = {  # a root module or a room -> the others that it may import; its own modules it always may
    room: set().union(*LAYERS[:height]) for height, layer in enumerate(LAYERS) for room in layer
}
MAY_IMPORT["data"] -= {"models"}
MAY_IMPORT["pictures"] |= {"grounding"}
MAY_IMPORT["config"] = {"errors", "files"}
MAY_IMPORT["files"] = {"errors"}
LIGHT = ROOT | GROUND | {"data", "world"}
HEAVY = {"torch", "torchvision", "transformers", "trl", "peft", "accelerate", "datasets", "vllm"}
NOT_WORDS = {"util", "utils", "common", "helper", "helpers", "misc", "obj"}

LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 60, 8
EXCUSE = "# long because "


def name_of(file: Path) -> str:
    """The dotted name of a file of the package: ``univg.models.tiny``."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place_of(module: str) -> str:
    """The room or the root module that a dotted name lies in; "" for the package itself."""
    return [*module.split("."), ""][1]


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a file imports, in functions and under TYPE_CHECKING too.

    A name taken from the package itself counts as its home: ``from univg import score`` is ``univg.grounding.scoring``.
    """
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, univg._HOMES.get(alias.name, full) if node.module == "univg" else full


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended


def loaded_by(statement: str) -> set[str]:
    """The top-level packages in sys.modules after `statement`, in a fresh interpreter."""
    listing = python(
        "-c", f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    )
    return set(listing.stdout.split())


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_module_imports_only_what_its_layer_may(file: Path) -> None:
    place = place_of(name_of(file))
    if not place:
        return  # the package itself names everything, lazily; tested below
    assert place in MAY_IMPORT, (
        f"{place} is neither a root module nor a room: give it its layer in MAY_IMPORT"
    )
    for line, module in imports(file):
        target = place_of(module)
        if module.startswith("univg.") and target in MAY_IMPORT:
            assert target == place or target in MAY_IMPORT[place], (
                f"{file}:{line}: {place} may not import {module}"
            )
        elif place in LIGHT:
            assert module.partition(".")[0] not in HEAVY, f"{file}:{line}: {place} stays free of {module}"


def test_data_and_all_below_it_load_nothing_heavy() -> None:
    light = [name for name in map(name_of, FILES) if place_of(name) in LIGHT]
    assert not loaded_by("\n".join(f"import {name}" for name in light)) & HEAVY


def test_the_command_parses_before_it_loads_anything_heavy() -> None:
    assert not loaded_by("import univg.cli.main") & HEAVY


def test_the_package_loads_nothing_but_the_standard_library() -> None:
    assert not (loaded_by("import univg") - loaded_by("")) & (HEAVY | {"numpy", "PIL", "pydantic", "yaml"})


def test_the_package_loads_within_a_tenth_of_a_second() -> None:
    def microseconds() -> int:
        report = python("-X", "importtime", "-c", "import univg").stderr.splitlines()
        return next(int(line.split("|")[1]) for line in report if line.endswith("| univg"))

    assert min(microseconds() for _ in range(5)) < 100_000


def test_public_names_are_where_the_package_says() -> None:
    typed = {}
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            typed |= {alias.name: node.module for alias in node.names if alias.name != "TYPE_CHECKING"}
    assert typed == univg._HOMES, "the names for type checkers and those for the interpreter are the same"
    assert set(univg.__all__) <= set(dir(univg))
    for name, home in univg._HOMES.items():
        file = PACKAGE.parent / f"{home.replace('.', '/')}.py"
        body = ast.parse(file.read_text(encoding="utf-8")).body
        assert name in {getattr(node, "name", None) for node in body}, f"{home} does not define {name}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = univg.nothing


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_names_are_words_of_the_house(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = {file.stem} | {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
    for name in names:
        words = name.lower().replace("common_object", "").split("_")  # which is a published task's name
        assert not NOT_WORDS & set(words), f"{file}: {name} says nothing about what it does"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_are_short_or_say_why_not(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_FILE, f"{file}: {len(lines)} lines"
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = lines[node.lineno - 1 : node.end_lineno]
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            excused = any(EXCUSE in line for line in body)
            assert excused or (len(body) <= LONGEST_FUNCTION and count <= MOST_PARAMETERS), (
                f"{file}:{node.lineno}: {node.name}: {len(body)} lines, {count} parameters"
            )


def test_no_module_imports_itself_through_others() -> None:
    """What is imported inside functions counts as well; what is for type checkers alone does not."""
    names = {name_of(file): file for file in FILES}
    graph = {name: {home_of(module, names) for module in needed_by(file)} for name, file in names.items()}
    remaining = {
        name: {one for one in found if one in names and one != name} for name, found in graph.items()
    }
    while leaves := {name for name, found in remaining.items() if not found}:
        remaining = {name: found - leaves for name, found in remaining.items() if name not in leaves}
    assert not remaining, f"cycles among {sorted(remaining)}"


def home_of(module: str, names: dict[str, Path]) -> str:
    """The module that a dotted name comes from: the longest part of it that is one."""
    parts = module.split(".")
    found = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((name for name in found if name in names), "")


def needed_by(file: Path) -> Iterator[str]:
    """Dotted names of all that a file imports when it runs."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_text_names_no_machine_and_no_registry() -> None:
    """Nothing here depends on one person's folders, nor on where packages are fetched from."""
    machine = re.compile(r"(?<![\w.~}>-])/(?:home|users?|root|work(?:space)?|mnt|scratch)/\w", re.IGNORECASE)
    registry = re.compile(r"\b(?:pypi|pythonhosted|npmjs|download\.pytorch)\.(?:org|com)\b")
    folders = ("src", "tests", "configs", "docs", "benchmarks", ".ci")
    kinds = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ""}
    files = [file for file in REPO.iterdir() if file.is_file() and file.name != ".git"]
    files += [file for folder in folders for file in (REPO / folder).rglob("*") if file.is_file()]
    for file in sorted(files):
        if file.suffix in kinds:
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                found = machine.search(line) or registry.search(line)
                assert not found, f"{file}:{number}: names {found.group()!r}"
