"""One config a verb: where a value comes from, what wins, what help says, and how each fault is told."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from cyclopts import App
from pydantic import Field

from univg.cli.grpo import GrpoCommand
from univg.cli.main import VERBS, main
from univg.cli.verbs import Command, Parameter, make_verb
from univg.config import Config, load_config
from univg.errors import UnivgError
from univg.training.config import GrpoConfig


class Inner(Config):
    rate: float = Field(default=1.0, gt=0)
    decay: float = 0.5


class Base(Config):
    section: ClassVar[str] = "The library's"

    inner: Inner = Inner(decay=0.1)
    shares: dict[str, float] = Field(default={})
    steps: int = Field(10, gt=0, le=100, description="How many steps.")
    mode: bool | Literal["a", "b"] = "a"


class DrawCommand(Command, Base):
    out: Annotated[Path, Parameter(metavar="DIR")] = Field(description="Folder to write.")
    n: Annotated[int | None, Parameter(alias="-n")] = Field(None, ge=1)
    task: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    bf16: bool = True
    as_json: Annotated[bool, Parameter(name="--json")] = False
    kind: Literal["x", "y"] | None = None


class GroundCommand(Command):
    positional: ClassVar[str | None] = "images"

    images: Annotated[tuple[str, ...], Parameter(metavar="IMAGE")] = Field((), description="The images.")
    query: Annotated[str, Parameter(alias="-q")] = ""
    samples: int = 1


class ScoreCommand(Command):
    positional: ClassVar[str | None] = "predictions"

    predictions: Annotated[Path, Parameter(metavar="PREDICTIONS.jsonl")] = Field(description="The rows.")
    legacy: bool = False


def read(cls: type[Command], *arguments: str) -> Any:
    read: list[Any] = []
    app = App(result_action="return_value", exit_on_error=False, print_error=False)
    app.command(make_verb("verb", cls, read.append))
    app(["verb", *arguments])
    return read[0]


def test_flags_win_over_keys_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("out: from-file\nsteps: 2\nn: 2\ninner: {rate: 2}\nbf16: false\ntask: [a]\n")
    arguments = [
        "--config",
        str(file),
        "steps=3",
        "--n",
        "5",
        "n=3",
        "inner.rate=3",
        "--task",
        "b",
        "--task",
        "c",
    ]
    told = read(DrawCommand, *arguments)
    assert (told.out, told.steps, told.n, told.bf16) == (Path("from-file"), 3, 5, False)
    assert (told.inner, told.task, told.config) == (Inner(rate=3, decay=0.1), ("b", "c"), str(file))
    assert read(DrawCommand, "--config", str(file), "--bf16").bf16 is True


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["-n", "3"], "n", 3),
        (["-n3", "--n=4"], "n", 4),
        (["--seeds", "1", "--seeds", "2"], "seeds", (1, 2)),
        (["--no-bf16"], "bf16", False),
        (["--json"], "as_json", True),
        (["--task", "1e3"], "task", ("1e3",)),
        (["--shares", "{a: 1e-3}"], "shares", {"a": 1e-3}),
        (["--mode", "on"], "mode", True),
        (["--mode", "b"], "mode", "b"),
        (["--kind", "y"], "kind", "y"),
        (["--inner", "{rate: 2}"], "inner", Inner(rate=2)),
        (["shares.a=2"], "shares", {"a": 2.0}),
    ],
)
def test_what_flags_and_keys_are_read_as(arguments: list[str], field: str, value: object) -> None:
    assert getattr(read(DrawCommand, "--out", "w", *arguments), field) == value


def test_arguments_without_a_flag() -> None:
    told = read(GroundCommand, "a.png", "-q", "no", "samples=2", "x=1.png", "--", "--b.png")
    assert (told.images, told.query, told.samples) == (("a.png", "x=1.png", "--b.png"), "no", 2)
    assert read(ScoreCommand, "p.jsonl").predictions == Path("p.jsonl")


@pytest.mark.parametrize(
    ("cls", "arguments", "line"),
    [
        (DrawCommand, [], "Missing option '--out': see univg verb --help"),
        (ScoreCommand, [], "Missing argument 'PREDICTIONS.jsonl': see univg verb --help"),
        (ScoreCommand, ["a", "b"], "Unexpected argument 'b': see univg verb --help"),
        (DrawCommand, ["--out", "w", "--n", "0"], "--n 0: Input should be greater than or equal to 1: see "),
        (DrawCommand, ["--out", "w", "--seeds", "x"], "--seeds: seeds.0: Input should be a valid integer"),
        (DrawCommand, ["--out", "w", "--shares", "[1"], "--shares [1: not a YAML value: "),
        (
            DrawCommand,
            ["--out", "w", "--inner", "{rat: 1}"],
            "--inner {rat: 1}: unknown key 'inner.rat'; did you ",
        ),
        (
            DrawCommand,
            ["--out", "w", "stepz=1"],
            "override 'stepz=1': unknown key 'stepz'; did you mean 'steps'?",
        ),
        (DrawCommand, ["--out", "w", "config=x"], "override 'config=x': write --config before a file's name"),
        (DrawCommand, ["--config", "nope.yaml"], "nope.yaml: no such config file"),
        (
            DrawCommand,
            ["--config", "tiny-grpo"],
            "this preset is for univg grpo: --config tiny-grpo: choose ",
        ),
    ],
)
def test_a_fault_is_told_on_one_line(cls: type[Command], arguments: list[str], line: str) -> None:
    with pytest.raises(UnivgError) as caught:
        read(cls, *arguments)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_part_is_what_the_library_would_have_loaded() -> None:
    alone = load_config(GrpoConfig, "tiny-grpo", ["seed=3"])
    part = read(GrpoCommand, "--config", "tiny-grpo", "--out", "w", "--seed", "3").part(GrpoConfig)
    assert type(part) is GrpoConfig
    assert part == alone
    assert part.model_dump_json() == alone.model_dump_json()


def test_help_has_the_sections_and_what_the_fields_say(capsys: pytest.CaptureFixture[str]) -> None:
    app = App(result_action="return_value", help_format="plaintext")
    app.command(make_verb("verb", DrawCommand, lambda command: None, example="univg verb --out w"))
    app(["verb", "-h"])
    told = capsys.readouterr().out
    assert told.index("─ Options ─") < told.index("--out DIR") < told.index("─ The library's ─")
    assert told.index("─ The library's ─") < told.index("How many steps. [0<x<=100] [default: 10]")
    assert "Folder to write. [required]" in told
    assert "[choices: x, y]" in told
    assert "Example: univg verb --out w" in told


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_says_what_each_says(verb: str) -> None:
    told = importlib.import_module(f"univg.cli.{verb}").app
    assert told.name == (verb,)
    assert " ".join(told.help.split("\n\n")[0].split()) == VERBS[verb]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["wrold"], 'Unknown command "wrold". Did you mean "world"?'),
        (["ground", "--sampels", "2"], "Unknown option: --sampels. Did you mean --samples?"),
        (
            ["world", "--split", "x"],
            'Invalid value "x" for --split. Choose from: "train", "test", "unseen", "drawn": see ',
        ),
        (
            ["world", "--out"],
            'Command "world" parameter --out requires an argument: see univg world --help',
        ),
    ],
)
def test_faults_of_usage_end_as_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"error: {line}")
    assert told.err.count("\n") == 1
