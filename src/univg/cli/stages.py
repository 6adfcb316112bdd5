"""Share what the verbs of training take: a config, a folder, and whether to resume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from univg.cli.verbs import Command, Parameter
from univg.errors import UnivgError

__all__ = ["StageCommand", "needing_packages", "print_result"]

TRAINING_PACKAGES = ("trl", "peft", "accelerate", "datasets")
OWN_PACKAGES = ("deepspeed", "vllm")


class StageCommand(Command):
    """What every training stage takes beside its settings."""

    config: Annotated[str, Parameter(metavar="FILE")] = Field(description="YAML file or preset.")
    out: Annotated[Path | None, Parameter(metavar="DIR")] = Field(
        default=None, description="Folder for the run and its model (default: runs/ and the config's name)."
    )
    resume: bool = Field(default=False, description="Go on from the last whole checkpoint.")

    @field_validator("out", mode="before")
    @classmethod
    def _names_a_folder(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("names no folder: write --out DIR, or --out . for the current one")
        return value

    def folder(self) -> Path:
        """Return the run's folder; UnivgError if nothing can be written there."""
        from univg.files import check_writable

        folder = self.out or Path("runs") / Path(self.config).stem
        check_writable(folder)
        return folder


@contextmanager
def needing_packages(verb: str) -> Iterator[None]:
    """Say which package is missing, and how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in (*TRAINING_PACKAGES, *OWN_PACKAGES):
            raise
        what = error.name if error.name in OWN_PACKAGES else "'univg[train]'"
        raise UnivgError(
            f"univg {verb} needs {error.name}, which is not installed: pip install {what}"
        ) from error


def print_result(what: str, folder: Path) -> None:
    """Print where a result is; of several processes, the first one does."""
    from univg.terminal import is_first_process

    if is_first_process():
        print(f"{what}: {folder}")
