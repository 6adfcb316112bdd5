"""`univg sft`, `univg grpo` and `univg merge`: the two training stages, and a plain model from an adapter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from univg.errors import UnivgError

__all__ = ["grpo", "merge", "sft"]

_Config = Annotated[
    str, typer.Option("--config", metavar="FILE", help="YAML file or preset.", show_default=False)
]
_Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Override config values.", show_default=False),
]
_Out = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Folder for the run and its model (default: runs/ and the config's name)."
    ),
]
_Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last whole checkpoint.")]


def sft(config: _Config, overrides: _Overrides = None, out: _Out = None, resume: _Resume = False) -> None:
    """Stage 1: fine-tune a checkpoint on samples with thoughts."""
    from univg.training.config import SftConfig

    settings, folder = _settings(SftConfig, config, overrides, out)
    with one_line_errors("sft"):
        from univg.training.sft.stage import run

        run(settings, folder, resume=resume)
    _say_where(folder)


def grpo(config: _Config, overrides: _Overrides = None, out: _Out = None, resume: _Resume = False) -> None:
    """Stage 2: reinforcement learning by the boxes' overlap, with difficulty weights."""
    from univg.training.config import GrpoConfig

    settings, folder = _settings(GrpoConfig, config, overrides, out)
    with one_line_errors("grpo"):
        from univg.training.grpo.stage import run

        run(settings, folder, resume=resume)
    _say_where(folder)


def merge(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="A LoRA adapter's folder or hub name.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the model.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="The base (default: the one that the adapter names).")
    ] = None,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
) -> None:
    """Make one plain model of a LoRA adapter and its base, and check that it answers as the two did."""
    from univg.files import check_writable

    check_writable(out)
    with one_line_errors("merge"):
        from univg.training.merging import run

        report = run(adapter, out, base=model, dtype=dtype)
    typer.echo(report)
    typer.echo(f"model: {out}")


_C = TypeVar("_C")


def _say_where(folder: Path) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        typer.echo(f"model: {folder}")


def _settings(cls: type[_C], config: str, overrides: list[str] | None, out: str | None) -> tuple[_C, Path]:
    from univg.config import ConfigError, load_config
    from univg.files import check_writable

    try:
        settings = load_config(cls, config, overrides or [])  # type: ignore[type-var]
    except ConfigError as error:
        raise UnivgError(str(error)) from error
    folder = Path(out or f"runs/{Path(config).stem}")
    check_writable(folder)
    return settings, folder


@contextmanager
def one_line_errors(stage: str) -> Iterator[None]:
    """What the caller can put right becomes a UnivgError; training's packages may be missing."""
    try:
        from univg.training.run.rows import StageError
    except ImportError as error:
        raise _missing(stage, error) from error
    try:
        yield
    except StageError as error:
        raise UnivgError(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name not in ("trl", "peft", "accelerate", "datasets", "deepspeed", "vllm"):
            raise
        raise _missing(stage, error) from error


def _missing(stage: str, error: ImportError) -> UnivgError:
    package = error.name or "a package"
    what = package if package in ("deepspeed", "vllm") else "'univg[train]'"
    return UnivgError(f"univg {stage} needs {package}, which is not installed: pip install {what}")
