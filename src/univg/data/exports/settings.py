"""Hold what every writer is told, and report what it cannot write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from univg.data.formats.faults import OnFault, Unusable, name_fault, report
from univg.data.formats.image_root import ImageRoot
from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH
from univg.grounding.prompts import PromptStyle, choose_style
from univg.grounding.samples import GroundingSample

__all__ = ["Export", "Writer", "check_folder"]


@dataclass(frozen=True)
class Export:
    """Say how samples are to be written.

    - `style`: the prompt's wording for samples that carry thinking (`"think"` or `"direct"`).
    - `images`: rewrites image paths as they lie under this folder; needed to embed them.
    - `embed`: put the images' bytes into the rows (verl and EasyR1).
    - `on_fault`: takes what cannot be written; without it, the first is raised.
    - `on_note`: takes what is to be known of the whole, such as pictures that were left out.
    - `link`: hard-link pictures instead of copying them (formats that are folders).
    - `split`: the part of the data set that this is (YOLO, COCO).
    - `category`: the one name of everything boxed, instead of what samples say.
    - `image_url`: what the address of a picture begins with (Label Studio).
    - `seen`: the size at which the model that is to be trained sees the picture of a name, for a family that writes
      pixels of that; raises `Unusable` for one that is not there, ValueError for one of no usable shape.
    """

    style: PromptStyle = "think"
    images: ImageRoot | None = None
    embed: bool = False
    on_fault: OnFault | None = None
    on_note: Callable[[str], None] | None = None
    link: bool = False
    split: str = "train"
    category: str | None = None
    image_url: str | None = None
    seen: Callable[[str], SizeWH] | None = None

    def style_of(self, sample: GroundingSample) -> PromptStyle:
        """Return the wording for one sample: "simple" if it carries no thinking."""
        return choose_style(sample, self.style)

    @contextmanager
    def reporting(self, sample: GroundingSample) -> Iterator[None]:
        """Report what the block raises as `Unusable` as a fault of `sample`, and go on behind it."""
        try:
            yield
        except Unusable as error:
            report(name_fault(error, sample.name), self.on_fault)

    def note(self, text: str) -> None:
        if self.on_note is not None:
            self.on_note(text)


Writer: TypeAlias = "Callable[[Path, Iterator[GroundingSample], Export], int]"
"""Writes samples to a file or folder, and returns how many."""


def check_folder(folder: Path) -> None:
    """Raise `UnivgError` if something is at `folder` already that a data set would be mixed into."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UnivgError("the folder is not empty", folder, "name another folder with --out, or empty it")
    if folder.exists() and not folder.is_dir():
        raise UnivgError("there is a file of this name", folder, "name a folder with --out")
